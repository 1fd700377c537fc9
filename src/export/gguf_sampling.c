/* Metadata "general.sampling.*": how tokens are to be drawn, by the source's
 * generation_config.json. llama.cpp goes by it in everything that its command line leaves open.
 * Fields and types are those of its own converter (gguf-py: metadata.py, gguf_writer.py). */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "export/gguf_meta.h"
#include "store/folder.h"

typedef struct setting {
    const char *fields[2]; /* of generation_config.json: the first that is there counts */
    const char *key;       /* of GGUF, after "general.sampling." */
    mq_gguf_type type;
} setting;

static const setting settings[] = {
    {{"sequence"}, "sequence", MQ_GGUF_STRING},
    {{"top_k"}, "top_k", MQ_GGUF_I32},
    {{"top_p"}, "top_p", MQ_GGUF_F32},
    {{"min_p"}, "min_p", MQ_GGUF_F32},
    {{"xtc_probability"}, "xtc_probability", MQ_GGUF_F32},
    {{"xtc_threshold"}, "xtc_threshold", MQ_GGUF_F32},
    {{"temperature"}, "temp", MQ_GGUF_F32},
    {{"penalty_last_n"}, "penalty_last_n", MQ_GGUF_I32},
    {{"penalty_repeat", "repetition_penalty"}, "penalty_repeat", MQ_GGUF_F32},
    {{"mirostat"}, "mirostat", MQ_GGUF_I32},
    {{"mirostat_tau"}, "mirostat_tau", MQ_GGUF_F32},
    {{"mirostat_eta"}, "mirostat_eta", MQ_GGUF_F32},
};

static const cJSON *value_of(const setting *row, const cJSON *config) {
    const cJSON *value = NULL;
    for (size_t i = 0; (value == NULL || cJSON_IsNull(value)) && i < 2; i++) {
        value =
            cJSON_GetObjectItemCaseSensitive(config, row->fields[i]); /* of NULL there is none */
    }
    return value;
}

/* Nothing of a value that the type does not hold. */
static void put_setting(mq_gguf_meta *meta, const setting *row, const cJSON *value) {
    char key[64];
    snprintf(key, sizeof key, "general.sampling.%s", row->key);
    const double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;
    if (row->type == MQ_GGUF_STRING && cJSON_IsString(value)) {
        mq_gguf_string(meta, key, value->valuestring);
    } else if (row->type == MQ_GGUF_F32 && fabs(number) <= (double)FLT_MAX) {
        mq_gguf_f32(meta, key, number);
    } else if (row->type == MQ_GGUF_I32 && fabs(number) <= INT32_MAX && number == floor(number)) {
        mq_gguf_i32(meta, key, (int32_t)number);
    }
}

void mq_gguf_put_sampling(mq_gguf_meta *meta, const cJSON *generation) {
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        put_setting(meta, &settings[i], value_of(&settings[i], generation));
    }
}

mq_status mq_gguf_read_generation(cJSON **out, const mq_plan *plan, mq_error *err) {
    const mq_status status =
        mq_read_folder_json(out, plan->job->options->master, "generation_config.json", true, err);
    if (status != MQ_ERR_INPUT) {
        return status;
    }
    /* it is the model's, and nothing has to be known of it */
    mq_log(plan->job->context, MQ_LOG_WARNING,
           "generation_config.json cannot be read, and the slice says nothing of sampling");
    return MQ_OK;
}
