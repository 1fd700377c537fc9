/* What config.json says of a model's arithmetic: its activation, and the numbers that are no sizes.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/config_parts.h"

/* When absent, *out stays. beside: of a field that is not read for the activation, and may name
 * what the feed-forward part, which every family's has gates in, makes of it. */
static mq_status get_activation(mq_activation *out, const cJSON *json, const char *key, bool beside,
                                const char *file, mq_error *err) {
    static const struct {
        const char *name;
        mq_activation activation;
        bool gated;
    } names[] = {
        {"silu", MQ_SILU, false},
        {"gelu_pytorch_tanh", MQ_GELU_TANH, false},
        {"swiglu", MQ_SILU, true},
    };
    const char *name = NULL;
    mq_status status = mq_json_get_string(&name, json, key, false, file, err);
    if (status != MQ_OK) {
        return status;
    }
    for (size_t i = 0; name != NULL && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, name) == 0 && (beside || !names[i].gated)) {
            *out = names[i].activation;
            name = NULL;
        }
    }
    if (name != NULL) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "%s \"%.100s\" is not supported (silu and gelu_pytorch_tanh are)", key,
                            name);
    }
    return MQ_OK;
}

mq_status mq_config_parse_activation(mq_config *out, const cJSON *json, const char *file,
                                     mq_error *err) {
    const mq_arch *arch = out->arch;
    out->activation = arch->default_activation;
    mq_status status =
        get_activation(&out->activation, json, arch->activation_field, false, file, err);
    if (status != MQ_OK || arch->activation_beside == NULL) {
        return status;
    }
    mq_activation beside = out->activation;
    status = get_activation(&beside, json, arch->activation_beside, true, file, err);
    return status == MQ_OK && beside != out->activation
               ? mq_fail_file(err, MQ_ERR_INPUT, file, "%s contradicts %s, which %s goes by",
                              arch->activation_beside, arch->activation_field, arch->architecture)
               : status;
}

/* A finite number above 0, or, where zero_allowed, not below it; when absent, *out stays. */
static mq_status get_positive(double *out, const cJSON *json, const char *key, bool zero_allowed,
                              const char *file, mq_error *err) {
    mq_status status = mq_json_get_double(out, json, key, false, file, err);
    if (status == MQ_OK && (!isfinite(*out) || *out < 0.0 || (*out == 0.0 && !zero_allowed))) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "%s is %g, which is out of range", key, *out);
    }
    return status;
}

/* null: none, also where the family has one by default. */
static mq_status parse_softcap(double *out, double by_default, const cJSON *json, const char *key,
                               const char *file, mq_error *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    *out = item == NULL ? by_default : 0.0;
    return item == NULL || cJSON_IsNull(item) ? MQ_OK
                                              : get_positive(out, json, key, false, file, err);
}

static mq_status parse_softcaps(mq_config *out, const cJSON *json, const char *file,
                                mq_error *err) {
    const mq_arch *arch = out->arch;
    const mq_status status =
        parse_softcap(&out->attn_logit_softcapping, arch->default_attn_logit_softcapping, json,
                      "attn_logit_softcapping", file, err);
    return status == MQ_OK
               ? parse_softcap(&out->final_logit_softcapping, arch->default_final_logit_softcapping,
                               json, "final_logit_softcapping", file, err)
               : status;
}

/* A number that can be multiplied with, and divided by, in float32; when absent, *out stays. */
static mq_status get_multiplier(double *out, const cJSON *json, const char *key, const char *file,
                                mq_error *err) {
    const mq_status status = get_positive(out, json, key, false, file, err);
    return status == MQ_OK && !(isnormal((float)*out) && isnormal((float)(1.0 / *out)))
               ? mq_fail_file(err, MQ_ERR_INPUT, file, "%s is %g, which is out of range", key, *out)
               : status;
}

/* Of families without such fields, too. */
static mq_status parse_multipliers(mq_config *out, const cJSON *json, const char *file,
                                   mq_error *err) {
    const struct {
        const char *key;
        double *value, otherwise;
    } fields[] = {
        {"embedding_multiplier", &out->embedding_multiplier,
         out->arch->scale_embeddings ? sqrt((double)out->hidden_size) : 1.0},
        {"attention_multiplier", &out->attention_scale, out->attention_scale},
        {"residual_multiplier", &out->residual_multiplier, 1.0},
        {"logits_scaling", &out->logits_scaling, 1.0},
    };
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof fields / sizeof fields[0]; i++) {
        *fields[i].value = out->arch->multipliers ? 1.0 : fields[i].otherwise;
        if (out->arch->multipliers) {
            status = get_multiplier(fields[i].value, json, fields[i].key, file, err);
        }
    }
    return status;
}

mq_status mq_config_parse_numbers(mq_config *out, const cJSON *json, const char *file,
                                  mq_error *err) {
    out->rms_norm_eps = out->arch->default_rms_norm_eps;
    out->tie_word_embeddings = out->arch->default_tie_word_embeddings;
    double scalar = out->arch->query_pre_attn_scalar ? out->arch->default_query_pre_attn_scalar
                                                     : (double)out->head_dim;
    mq_status status = get_positive(&out->rms_norm_eps, json, "rms_norm_eps", true, file, err);
    if (status == MQ_OK) {
        status = mq_json_get_bool(&out->tie_word_embeddings, json, "tie_word_embeddings", false,
                                  file, err);
    }
    if (status == MQ_OK) {
        status = mq_json_get_bool(&out->attention_bias, json, "attention_bias", false, file, err);
    }
    if (status == MQ_OK && out->attention_bias && !out->arch->attention_bias) {
        status =
            mq_fail_file(err, MQ_ERR_INPUT, file, "attention_bias is true, which %s does not read",
                         out->arch->architecture);
    }
    if (status == MQ_OK) {
        status = mq_json_get_bool(&out->mlp_bias, json, "mlp_bias", false, file, err);
    }
    if (status == MQ_OK && out->mlp_bias && mq_config_linear_place(out, MQ_UP).first > 0) {
        status = mq_fail_file(err, MQ_ERR_INPUT, file, "mlp_bias is true, which %s does not read",
                              out->arch->architecture);
    }
    if (status == MQ_OK && out->arch->query_pre_attn_scalar) {
        status = get_positive(&scalar, json, "query_pre_attn_scalar", false, file, err);
    }
    out->attention_scale = 1.0 / sqrt(scalar);
    if (status == MQ_OK) {
        status = parse_multipliers(out, json, file, err);
    }
    return status == MQ_OK ? parse_softcaps(out, json, file, err) : status;
}
