#include "store/verification.h"

#include <string.h>

#include "matquant/inspect.h"
#include "matquant/names.h"
#include "store/folder.h"
#include "store/names.h"
#include "store/quantized_weights.h"
#include "store/symmetric.h"

/* --- shapes ----------------------------------------------------------------------------------- */

mq_status mq_verify_shapes(const mq_verification *self, mq_error *err) {
    mq_error problem = {.status = MQ_OK};
    mq_config config;
    mq_status status = mq_config_read(&config, self->folder, &problem);
    if (status == MQ_OK) {
        mq_config_find_layout(&config, self->tensors);
        status = mq_quantized_check(&config, self->master, self->slice, mq_model_check, &problem);
        mq_config_free(&config);
    }
    return status == MQ_OK ? MQ_OK : mq_problem(self->problems, &problem, err);
}

/* --- symmetric zero points -------------------------------------------------------------------- */

static mq_status check_symmetric(const mq_verification *self, const mq_master_view *view,
                                 mq_error *err) {
    mq_error problem;
    mq_status status = MQ_OK;
    if (mq_master_serves(self->master, MQ_MAX_WIDTH) &&
        mq_check_symmetric_codes(view, &problem) != MQ_OK) {
        status = mq_problem(self->problems, &problem, err);
    }
    for (unsigned width = MQ_MIN_WIDTH; status == MQ_OK && width <= MQ_MAX_WIDTH; width++) {
        if (view->scales[width] != NULL &&
            mq_check_symmetric_pairs(view, width, &problem) != MQ_OK) {
            status = mq_problem(self->problems, &problem, err);
        }
    }
    return status;
}

mq_status mq_verify_zero_points(const mq_verification *self, mq_error *err) {
    mq_status status = MQ_OK;
    if (self->master == NULL || mq_master_zero_point(self->master) != MQ_ZERO_SYMMETRIC) {
        return MQ_OK;
    }
    for (size_t i = 0; status == MQ_OK && i < mq_master_linear_count(self->master); i++) {
        status = mq_check_interrupt(self->context, err);
        if (status == MQ_OK) {
            status = check_symmetric(self, mq_master_linear_at(self->master, i), err);
        }
    }
    return status;
}

/* --- groups ----------------------------------------------------------------------------------- */

/* What the master's maker asked for; of a slice, what its master's did. NULL: nothing says so. */
static const cJSON *recipe_of(const mq_verification *self) {
    return mq_provenance_item(self->provenance, "recipe");
}

/* What says how large a layer's groups are: config.json, or for rows that its size does not divide
 * the recipe's fallback, which stands in matquant.json alone. */
typedef struct group_rule {
    size_t size, fallback; /* 0: the whole row */
    bool has_fallback;
} group_rule;

static group_rule rule_of(const mq_verification *self) {
    const cJSON *recipe = recipe_of(self);
    const cJSON *fallback = cJSON_GetObjectItemCaseSensitive(recipe, "group_fallback");
    group_rule rule = {.size = mq_master_group_size(self->master)};
    rule.has_fallback =
        cJSON_IsNumber(fallback) && fallback->valuedouble >= 0.0 && fallback->valuedouble < 1e9;
    rule.fallback = rule.has_fallback ? (size_t)fallback->valuedouble : 0;
    return rule;
}

static mq_status check_groups(const mq_verification *self, const mq_master_view *view,
                              const group_rule *rule, mq_error *err) {
    const size_t own = view->in / view->groups;
    const bool divides = rule->size == 0 || view->in % rule->size == 0;
    if (!divides && !rule->has_fallback && recipe_of(self) == NULL) {
        return MQ_OK; /* nothing says what they should be */
    }
    const size_t said = divides ? rule->size : rule->fallback;
    if ((divides || rule->has_fallback) && own == (said == 0 ? view->in : said)) {
        return MQ_OK;
    }
    mq_error problem;
    char name[MQ_STORED_NAME_SIZE];
    mq_name_make(name, view->prefix, "codes", 0);
    const char *where = mq_tensors_where(self->tensors, name);
    if (divides || rule->has_fallback) {
        mq_fail_tensor(&problem, MQ_ERR_INPUT, where, name, "has groups of %zu, %s says %zu", own,
                       divides ? MQ_CONFIG_FILE : MQ_PROVENANCE_FILE, said);
    } else {
        mq_fail_tensor(&problem, MQ_ERR_INPUT, where, name,
                       "has groups of %zu, and %s says %zu, which does not divide its rows of %zu",
                       own, MQ_CONFIG_FILE, rule->size, view->in);
    }
    return mq_problem(self->problems, &problem, err);
}

mq_status mq_verify_groups(const mq_verification *self, mq_error *err) {
    if (self->master == NULL) {
        return MQ_OK;
    }
    const group_rule rule = rule_of(self);
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < mq_master_linear_count(self->master); i++) {
        status = check_groups(self, mq_master_linear_at(self->master, i), &rule, err);
    }
    return status;
}

/* --- what the codes mean ---------------------------------------------------------------------- */

/* Nothing in the tensors shows that config.json reads them in another way than they were made for:
 * the provenance does. */
static mq_status check_setting(const mq_verification *self, const char *key, const char *made,
                               const char *found, mq_error *err) {
    if (made == NULL || found == NULL || strcmp(made, found) == 0) {
        return MQ_OK;
    }
    mq_error problem;
    mq_fail_file_in(&problem, MQ_ERR_INPUT, self->folder, MQ_CONFIG_FILE,
                    "says %s \"%s\", but the codes were made for \"%s\"", key, found, made);
    return mq_problem(self->problems, &problem, err);
}

static const char *made_with(const mq_verification *self, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(recipe_of(self), key));
}

mq_status mq_verify_settings(const mq_verification *self, mq_error *err) {
    if (self->master == NULL) {
        return MQ_OK;
    }
    /* A slice's codes are rounded already: there is nothing to round when they are read. */
    const char *rule = made_with(self, "slice_rule");
    const bool cut = mq_provenance_slice(self->provenance) != NULL;
    if (cut && rule != NULL &&
        strcmp(rule, mq_name_at(mq_slice_rule_names(), MQ_SLICE_ROUND)) == 0) {
        rule = mq_name_at(mq_slice_rule_names(), MQ_SLICE_TOP);
    }
    const char *rule_found = mq_name_at(mq_slice_rule_names(), mq_master_slice_rule(self->master));
    const char *zero_found = mq_name_at(mq_zero_point_names(), mq_master_zero_point(self->master));
    const mq_status status = check_setting(self, "slice_rule", rule, rule_found, err);
    return status == MQ_OK
               ? check_setting(self, "zero_point", made_with(self, "zero_point"), zero_found, err)
               : status;
}

/* --- all of it -------------------------------------------------------------------------------- */

static mq_status verify_open(const mq_verification *self, const char *against, mq_error *err) {
    bool readable = self->problems->count == 0;
    mq_status status = mq_verify_tensors(self, err);
    if (status == MQ_OK) {
        status = mq_verify_weight_files(self, err);
    }
    if (status == MQ_OK) {
        status = mq_verify_zero_points(self, err);
    }
    if (status == MQ_OK) {
        status = mq_verify_groups(self, err);
    }
    if (status == MQ_OK && readable) {
        status = mq_verify_settings(self, err);
    }
    if (status == MQ_OK) {
        status = mq_verify_tokenizer(self, err);
    }
    if (status == MQ_OK && readable) { /* a layer that was left out would only be called missing */
        status = mq_verify_shapes(self, err);
    }
    if (status == MQ_OK && against != NULL) {
        status = mq_verify_against(self, against, err);
    }
    /* Last: what of config.json is wrong says more than that something is. */
    return status == MQ_OK ? mq_verify_written(self, against, err) : status;
}

static mq_status verify_master(mq_verification *self, const char *against, mq_error *err) {
    mq_master *master = NULL;
    mq_status status = mq_master_scan(&master, self->folder, self->problems, err);
    if (status == MQ_OK) {
        self->master = master;
        self->tensors = mq_master_tensors(master);
        self->config = mq_master_config(master);
        self->provenance = mq_master_provenance(master);
        status = verify_open(self, against, err);
    }
    mq_master_close(master);
    return status;
}

static mq_status verify_slice(mq_verification *self, const char *against, mq_error *err) {
    mq_slice_reader *slice = NULL;
    mq_status status = mq_slice_reader_open(&slice, self->folder, self->problems, err);
    if (status == MQ_OK) {
        self->slice = slice;
        self->tensors = mq_slice_reader_tensors(slice);
        self->config = mq_slice_reader_config(slice);
        self->provenance = mq_slice_reader_provenance(slice);
        status = verify_open(self, against, err);
    }
    mq_slice_reader_close(slice);
    return status;
}

/* A slice in safetensors is as plain as a model that nobody quantized. */
static mq_status fail_plain(const char *folder, mq_error *err) {
    cJSON *provenance = NULL;
    const mq_status status =
        mq_read_folder_json(&provenance, folder, MQ_PROVENANCE_FILE, true, NULL);
    const bool slice = status == MQ_OK && mq_provenance_slice(provenance) != NULL;
    cJSON_Delete(provenance);
    return slice ? mq_fail_file(err, MQ_ERR_INPUT, folder,
                                "is a slice in safetensors, plain weights that verify does not "
                                "check; it checks masters, and slices in mlx and matquant")
                 : mq_fail_file_in(err, MQ_ERR_INPUT, folder, MQ_CONFIG_FILE,
                                   "is of a model that is not quantized: there is no master or "
                                   "slice to verify");
}

mq_status mq_verify(mq_verify_report *report, const char *folder, const char *against,
                    const mq_context *context, mq_error *err) {
    *report = (mq_verify_report){0};
    if (folder == NULL) {
        return mq_fail(err, MQ_ERR_USAGE, "a folder is needed");
    }
    mq_kind kind = MQ_KIND_PLAIN;
    mq_status status = mq_folder_kind(&kind, folder, err);
    if (status != MQ_OK) {
        return status;
    }
    if (kind == MQ_KIND_PLAIN) {
        return fail_plain(folder, err);
    }
    mq_problems problems = {.context = context};
    mq_verification self = {
        .folder = folder, .problems = &problems, .report = report, .context = context};
    status = kind == MQ_KIND_MASTER ? verify_master(&self, against, err)
                                    : verify_slice(&self, against, err);
    report->problems = problems.count;
    if (status == MQ_OK && problems.count > 0) {
        status = MQ_ERR_CHECK;
        if (err != NULL) {
            *err = problems.first;
            err->status = status;
        }
    }
    return status;
}
