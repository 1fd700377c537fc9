#include <string.h>

#include "base/error.h"
#include "model/config_parts.h"

/* What config.c reads of every config.json; also in the member that describes a language model. */
static const char *const fields_of_all[] = {
    "architectures",
    "model_type",
    "tie_word_embeddings",
    NULL,
};

/* What is left to the caller. */
static const char *const fields_of_files[] = {
    "quantization_config",
    "quantization", /* as mlx_lm names it */
    NULL,
};

/* What config.c and config_rope.c read of every language model. */
static const char *const fields_of_text[] = {
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "attention_bias",
    "layer_types",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    NULL,
};

/* Fields that transformers writes and that have no influence on the logits of a decoder in
 * evaluation: provenance, storage type, token ids, training, classification heads, output formats,
 * and the defaults of text generation. */
static const char *const fields_without_influence[] = {
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "transformers_version",
    "transformers.js_config",
    "torch_dtype",
    "dtype",
    "use_bfloat16",
    "torchscript",
    "tf_legacy_loss",
    "tokenizer_class",
    "is_llama_config",
    "is_decoder",
    "max_window_layers", /* read for Qwen only, and there windows are refused */
    "_attn_implementation",
    "attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_flash_attn_2_enabled",
    "model_max_length",
    "max_sequence_length", /* in the oldest folders of Llama 1; read by nothing */
    "unsloth_fixed",       /* in the mirrors of models whose own folders want a login */
    "unsloth_version",
    /* token ids */
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    /* training */
    "initializer_range",
    "attention_dropout",
    "pretraining_tp", /* in how many parts products were summed */
    /* other heads and tasks */
    "finetuning_task",
    "task_specific_params",
    "prefix",
    "problem_type",
    "id2label",
    "label2id",
    "num_labels",
    /* running */
    "use_cache",
    "cache_implementation",
    "return_dict",
    "return_dict_in_generate",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "remove_invalid_values",
    "chunk_size_feed_forward",
    /* sampling */
    "do_sample",
    "max_length",
    "min_length",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "num_return_sequences",
    NULL,
};

/* Fields that would change the result and for which only one value is implemented, but for the
 * families that list them among those that they read. */
typedef struct fixed_field {
    const char *name;
    enum { FIXED_FALSE, FIXED_ONE, FIXED_EMPTY, FIXED_NO_CODE } value;
} fixed_field;

static const fixed_field fixed_fields[] = {
    {"partial_rotary_factor", FIXED_ONE},
    {"full_attn_mod", FIXED_ONE},      /* these three in Phi-4-mini's files; read by nothing */
    {"interpolate_factor", FIXED_ONE}, /* (nor is a bias of the head) */
    {"lm_head_bias", FIXED_FALSE},
    {"rope_interleaved", FIXED_FALSE},
    {"use_bidirectional_attention", FIXED_FALSE},
    {"use_sliding_window", FIXED_FALSE},
    {"use_mrope", FIXED_FALSE},
    {"is_encoder_decoder", FIXED_FALSE},
    {"add_cross_attention", FIXED_FALSE},
    {"tie_encoder_decoder", FIXED_FALSE},
    {"pruned_heads", FIXED_EMPTY},
    {"auto_map", FIXED_NO_CODE}, /* names Python files that come with the model */
};

static const char *const fixed_names[] = {"false", "1", "empty", "empty"};

/* The user may know what we do not: what a field is for, or that code which comes with a model
 * computes what the family's own does. */
#define REMOVAL_HINT                                                                               \
    "; it may be removed from config.json if it does not change what the model computes"

/* Lists of fields, the last NULL. */
enum { LISTS = 6 };

static bool listed(const char *const *const lists[LISTS], const char *name) {
    for (size_t i = 0; lists[i] != NULL; i++) {
        for (const char *const *at = lists[i]; *at != NULL; at++) {
            if (strcmp(*at, name) == 0) {
                return true;
            }
        }
    }
    return false;
}

static const fixed_field *find_fixed(const char *name) {
    for (size_t i = 0; i < sizeof fixed_fields / sizeof fixed_fields[0]; i++) {
        if (strcmp(fixed_fields[i].name, name) == 0) {
            return &fixed_fields[i];
        }
    }
    return NULL;
}

/* Past the repository that transformers 4 puts before it in what it saves, if it is one of the
 * makers': "microsoft/Phi-3.5-mini-instruct--". */
static const char *after_repository(const char *value, const char *owner) {
    const size_t length = strlen(owner);
    const bool theirs = strncmp(value, owner, length) == 0 && value[length] == '/';
    const char *end = theirs ? strstr(value + length, "--") : NULL;
    return end != NULL ? end + strlen("--") : value;
}

/* "modeling_phi3.Phi3ForCausalLM": in one of the files that the family's makers have published.
 * Which tokenizer there is has nothing to do with it. */
static bool is_own_code(const cJSON *item, const mq_arch *arch) {
    static const char *const files[] = {"modeling_", "configuration_"};
    const char *own = arch->own_code, *value = cJSON_IsString(item) ? item->valuestring : "";
    bool is_own = strcmp(item->string, "AutoTokenizer") == 0;
    value = after_repository(value, arch->own_code_owner);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const size_t begin = strlen(files[i]), length = strlen(own);
        is_own =
            is_own || (strncmp(value, files[i], begin) == 0 &&
                       strncmp(value + begin, own, length) == 0 && value[begin + length] == '.');
    }
    return is_own;
}

static bool names_own_code(const cJSON *map, const mq_arch *arch) {
    bool good = cJSON_IsObject(map) && arch->own_code != NULL;
    for (const cJSON *item = good ? map->child : NULL; item != NULL; item = item->next) {
        good = good && is_own_code(item, arch);
    }
    return good;
}

static bool has_fixed_value(const fixed_field *field, const cJSON *item, const mq_arch *arch) {
    switch (field->value) {
    case FIXED_FALSE:
        return cJSON_IsFalse(item);
    case FIXED_ONE:
        return cJSON_IsNumber(item) && item->valuedouble == 1.0;
    default:
        return ((cJSON_IsObject(item) || cJSON_IsArray(item)) && item->child == NULL) ||
               (field->value == FIXED_NO_CODE && names_own_code(item, arch));
    }
}

const cJSON *mq_config_member(const cJSON *json, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

static mq_status check_fields(const char *const *const lists[LISTS], const mq_arch *arch,
                              const cJSON *json, const char *file, mq_error *err) {
    for (const cJSON *item = json->child; item != NULL; item = item->next) {
        const char *name = item->string;
        if (cJSON_GetObjectItemCaseSensitive(json, name) != item) {
            return mq_fail_file(err, MQ_ERR_INPUT, file, "the field \"%s\" is there twice", name);
        }
        const fixed_field *fixed = listed(lists, name) ? NULL : find_fixed(name);
        if (cJSON_IsNull(item)) {
            continue;
        }
        if (fixed != NULL) {
            if (!has_fixed_value(fixed, item, arch)) {
                return mq_fail_file(
                    err, MQ_ERR_INPUT, file,
                    "the field \"%s\" has a value that is not supported (only %s is)%s", name,
                    fixed_names[fixed->value], fixed->value == FIXED_NO_CODE ? REMOVAL_HINT : "");
            }
        } else if (!listed(lists, name)) {
            return mq_fail_file(err, MQ_ERR_INPUT, file,
                                "the field \"%s\" is not supported for %s" REMOVAL_HINT, name,
                                arch->architecture);
        }
    }
    return MQ_OK;
}

mq_status mq_config_check_fields(const mq_arch *arch, const cJSON *json, const cJSON *text,
                                 const char *file, mq_error *err) {
    const char *const *const of_file[LISTS] = {fields_of_all, fields_without_influence,
                                               fields_of_files, arch->fields_beside};
    const char *const *const of_text[LISTS] = {fields_of_all, fields_without_influence,
                                               fields_of_text, arch->fields};
    if (text == json) {
        const char *const *const of_both[LISTS] = {fields_of_all, fields_without_influence,
                                                   fields_of_files, fields_of_text, arch->fields};
        return check_fields(of_both, arch, json, file, err);
    }
    const mq_status status = check_fields(of_file, arch, json, file, err);
    return status == MQ_OK
               ? mq_config_in_text(err, check_fields(of_text, arch, text, file, err), arch)
               : status;
}
