/* What a GGUF file calls its model. llama.cpp takes from that name whether white space after a
 * special token belongs to the token, as the tokenizers of Phi-3 and Phi-3.5 have it (rstrip): of a
 * name with "phi-3" or "phi3" in it, in letters of any case. Then it wants tokens of these, too,
 * and does not load a file without them, such as Phi-4's. */
#include <ctype.h>
#include <string.h>

#include "base/buffer.h"
#include "export/gguf_model.h"
#include "store/folder.h"

/* The length of such a mark at the beginning of the text; 0: there is none. */
static size_t mark_at(const char *text) {
    static const char phi[] = "phi";
    size_t length = 0;
    while (length < 3 && tolower((unsigned char)text[length]) == phi[length]) {
        length++;
    }
    if (length < 3) {
        return 0;
    }
    length += text[length] == '-';
    return text[length] == '3' ? length + 1 : 0;
}

static bool has_mark(const char *name) {
    bool found = false;
    for (const char *at = name; *at != '\0'; at++) {
        found = found || mark_at(at) > 0;
    }
    return found;
}

/* The tokens that llama.cpp wants in a file that it takes for Phi-3's. White space after a token is
 * dropped, but not after those from the second on. */
static const char *const phi3_tokens[] = {"</s>", "<unk>", "<s>", "<|endoftext|>"};
enum { PHI3_TOKENS = sizeof phi3_tokens / sizeof *phi3_tokens };

bool mq_gguf_phi3_strips(const char *text) {
    size_t i = 1;
    while (i < PHI3_TOKENS && strcmp(text, phi3_tokens[i]) != 0) {
        i++;
    }
    return i == PHI3_TOKENS;
}

/* Whether llama.cpp, told that this is Phi-3, does as the tokenizer says. */
static bool strips(const cJSON *tokenizer) {
    const cJSON *added = cJSON_GetObjectItemCaseSensitive(tokenizer, "added_tokens"), *item = NULL;
    bool any = false;
    size_t found = 0;
    cJSON_ArrayForEach(item, added) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "content"));
        any = any || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "rstrip"));
        for (size_t i = 0; text != NULL && i < PHI3_TOKENS; i++) {
            found += strcmp(text, phi3_tokens[i]) == 0;
        }
    }
    return any && found == PHI3_TOKENS;
}

/* Whether the name is one that matters or, of Phi's architecture, may have to be made one. */
static bool may_be_phi3(const mq_plan *plan) {
    return has_mark(plan->job->master_name) || strcmp(mq_gguf_arch_of(plan)->name, "phi3") == 0;
}

bool mq_gguf_named_phi3(const mq_plan *plan, const cJSON *tokenizer) {
    return may_be_phi3(plan) && strips(tokenizer);
}

/* "phi3" and "phi-3" with a space in place of what is between. */
static void put_unmarked(mq_buffer *out, const char *name) {
    for (size_t length; *name != '\0'; name += length) {
        length = mark_at(name);
        if (length == 0) {
            length = 1;
            mq_buffer_put(out, name, 1);
        } else {
            mq_buffer_put(out, name, 3);
            mq_buffer_put_text(out, " 3");
        }
    }
}

mq_status mq_gguf_put_name(mq_gguf_meta *meta, const mq_plan *plan, mq_error *err) {
    static const char key[] = "general.name";
    const char *name = plan->job->master_name;
    if (!may_be_phi3(plan)) {
        mq_gguf_string(meta, key, name);
        return MQ_OK;
    }
    cJSON *tokenizer = NULL;
    const mq_status status =
        mq_read_folder_json(&tokenizer, plan->job->options->master, "tokenizer.json", false, err);
    if (status != MQ_OK) {
        return status;
    }
    const bool wanted = strips(tokenizer);
    cJSON_Delete(tokenizer);
    mq_buffer text = {0};
    if (wanted && !has_mark(name)) {
        mq_buffer_put_text(&text, "Phi-3 ");
    }
    if (wanted) {
        mq_buffer_put_text(&text, name);
    } else {
        put_unmarked(&text, name);
    }
    mq_buffer_put(&text, "", 1);
    if (text.failed) {
        mq_free(text.text);
        return mq_fail_memory(err, "the model's name", strlen(name));
    }
    mq_gguf_string(meta, key, text.text);
    mq_free(text.text);
    return MQ_OK;
}
