/* layer: model */
/* Rotary settings of config.json: their spellings, what nothing reads, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config_text.h"

static void test_rope_spellings(void **state) {
    (void)state;
    accepted(LLAMA, "\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}",
             "rope_type linear|factor 2|rope_theta 5e5");
    accepted(LLAMA,
             "\"rope_theta\":1e4,\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":2,"
             "\"rope_theta\":123.0}",
             "rope_type dynamic|rope_theta 123|local.rope_theta 123");
    accepted(LLAMA, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"finetuned\":true}",
             "original_max_position_embeddings 2048|beta_fast 32|beta_slow 1|truncate 1|"
             "attention_factor -1");
    accepted(GEMMA,
             "\"rope_theta\":5,\"rope_local_base_freq\":6,\"rope_scaling\":{\"rope_type\":"
             "\"linear\",\"factor\":8.0}",
             "rope_type linear|local.rope_type default|rope_theta 5|local.rope_theta 6");
    accepted(GEMMA,
             "\"rope_parameters\":{\"full_attention\":null,\"sliding_attention\":"
             "{\"rope_type\":\"linear\",\"factor\":3,\"rope_theta\":77}}",
             "rope_theta 1e6|local.rope_theta 77|local.rope_type linear");
}

/* What of a rotation's settings nothing reads, and settings in both spellings. */
static void test_rope_oddities(void **state) {
    (void)state;
#define LENGTH "\"original_max_position_embeddings\":16"
    static const char *const unscaled[] = {
        "\"rope_parameters\":{\"rope_type\":\"default\"," LENGTH "}",
        "\"rope_parameters\":{\"rope_type\":\"default\",\"factor\":1.0}",
        "\"rope_scaling\":{\"factor\":1}",
        "\"rope_scaling\":{},\"rope_parameters\":{}",
    };
    for (size_t i = 0; i < sizeof unscaled / sizeof *unscaled; i++) {
        accepted(LLAMA, unscaled[i], "rope_type default|rope_theta 1e4");
    }
#define LINEAR(more) "{\"rope_type\":\"linear\",\"factor\":2" more "}"
    accepted(LLAMA, "\"rope_parameters\":" LINEAR("," LENGTH),
             "rope_type linear|original_max_position_embeddings 0");
    accepted(LLAMA,
             "\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
             "\"rope_parameters\":" LINEAR(",\"rope_theta\":5e5"),
             "rope_type linear|factor 2|local.rope_theta 5e5");
#define TWICE LINEAR("")
    accepted(GEMMA,
             "\"rope_local_base_freq\":7,\"rope_scaling\":" TWICE ",\"rope_parameters\":"
             "{\"full_attention\":" TWICE ",\"sliding_attention\":{\"rope_theta\":7}}",
             "factor 2|local.rope_theta 7");

#define CONTRADICT "rope_scaling and rope_parameters contradict each other"
    refused(LLAMA, "\"rope_scaling\":{},\"rope_parameters\":" TWICE, CONTRADICT);
    refused(LLAMA, "\"rope_scaling\":" TWICE ",\"rope_parameters\":" LINEAR(",\"rope_theta\":5e5"),
            CONTRADICT);
    refused(GEMMA, "\"rope_scaling\":{},\"rope_parameters\":{\"sliding_attention\":" TWICE "}",
            CONTRADICT);
    refused(GEMMA, "\"rope_scaling\":{},\"rope_parameters\":[]",
            "rope_parameters is not an object");
    refused(LLAMA, "\"rope_parameters\":{\"rope_type\":\"default\",\"factor\":\"1\"}",
            "rope_parameters.factor");
#undef CONTRADICT
#undef TWICE
#undef LINEAR
#undef LENGTH
}

static void test_rope_refusals(void **state) {
    (void)state;
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"longrope\"}",
            "rope_scaling.rope_type \"longrope\"|yarn");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"linear\"}", "rope_scaling.factor is missing");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0.5}",
            "rope_scaling.factor");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":\"2\"}",
            "rope_scaling.factor");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"type\":\"yarn\"}",
            "rope_scaling.type contradicts");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"beta_fast\":3}",
            "rope_scaling.beta_fast|linear");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"factor\":3}",
            "rope_scaling.factor is there twice");
    refused(LLAMA, "\"rope_scaling\":{\"factor\":2}", "rope_scaling.factor|default");
    refused(LLAMA, "\"rope_scaling\":[2]", "rope_scaling is not an object");
    refused(LLAMA, "\"rope_parameters\":{\"partial_rotary_factor\":0.5}",
            "rope_parameters.partial_rotary_factor");
    refused(LLAMA, "\"rope_parameters\":{\"full_attention\":{}}", "rope_parameters.full_attention");
    refused(LLAMA, "\"rope_theta\":0", "rope_theta must be positive");
    refused(LLAMA, "\"rope_theta\":1e999", "rope_theta");
    refused(LLAMA,
            "\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2,\"original_max_position_"
            "embeddings\":16}",
            "original_max_position_embeddings contradicts");
    refused(LLAMA, "\"head_dim\":2,\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}",
            "head_dim above 2");
    refused(LLAMA,
            "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2,\"high_freq_factor\":4}",
            "low_freq_factor");
    refused(LLAMA,
            "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":1,\"high_"
            "freq_factor\":1}",
            "high_freq_factor");
    refused(LLAMA,
            "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":1,\"high_"
            "freq_factor\":4,\"original_max_position_embeddings\":0}",
            "original_max_position_embeddings");
    refused(LLAMA,
            "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"original_max_position_"
            "embeddings\":2147483648}",
            "original_max_position_embeddings must be between 1 and 2147483647");
    refused(LLAMA, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"beta_slow\":-1}",
            "beta_slow");
    refused(LLAMA, "\"rope_theta\":1,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}",
            "rope_theta must be above 1");
    refused(GEMMA, "\"rope_parameters\":{\"rope_theta\":5}", "rope_parameters.rope_theta");
    refused(GEMMA, "\"rope_parameters\":[]", "rope_parameters is not an object");
    refused(GEMMA, "\"rope_local_base_freq\":-1", "rope_local_base_freq must be positive");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rope_spellings),
        cmocka_unit_test(test_rope_oddities),
        cmocka_unit_test(test_rope_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
