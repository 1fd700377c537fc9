#include "text/tok_vocab.h"

#include <string.h>

#include "base/error.h"

#define NO_JOINT UINT64_MAX

static uint64_t mix(uint64_t x) { /* the finalizer of splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

uint64_t mq_hash_bytes(const char *data, size_t size) {
    uint64_t hash = size;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        hash = mix(hash ^ word);
    }
    uint64_t word = 0;
    memcpy(&word, data, size);
    return mix(hash ^ word);
}

/* The power of two that keeps `count` entries under half full. */
static bool slot_count(size_t *out, size_t count) {
    size_t slots = 16;
    while (slots / 2 < count) {
        if (slots > SIZE_MAX / 2) {
            return false;
        }
        slots *= 2;
    }
    *out = slots;
    return true;
}

/* --- vocabulary ------------------------------------------------------------------------------- */

mq_status mq_vocab_init(mq_vocab *vocab, size_t count, size_t text_size, size_t max_id,
                        mq_error *err) {
    size_t slots;
    if (!slot_count(&slots, count)) {
        return mq_fail_memory(err, "the vocabulary", SIZE_MAX);
    }
    mq_status status = mq_new(&vocab->text, text_size, 1, "the vocabulary", err);
    if (!status) {
        status = mq_new(&vocab->slots, slots, sizeof *vocab->slots, "the vocabulary", err);
    }
    if (status) {
        return status;
    }
    vocab->slot_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) {
        vocab->slots[i] = -1;
    }
    vocab->entries = mq_calloc(max_id + 1, sizeof *vocab->entries);
    if (!vocab->entries) {
        return mq_fail_memory(err, "the vocabulary", (max_id + 1) * sizeof *vocab->entries);
    }
    vocab->size = count ? max_id + 1 : 0;
    return MQ_OK;
}

/* The slot that holds the text, or the free one where it belongs. */
static size_t vocab_slot(const mq_vocab *vocab, const char *text, size_t size) {
    size_t slot = (size_t)mq_hash_bytes(text, size) & vocab->slot_mask;
    for (;; slot = (slot + 1) & vocab->slot_mask) {
        int32_t id = vocab->slots[slot];
        if (id < 0 ||
            (vocab->entries[id].size == size && memcmp(vocab->entries[id].text, text, size) == 0)) {
            return slot;
        }
    }
}

mq_status mq_vocab_add(mq_vocab *vocab, const char *text, size_t size, int32_t id, mq_error *err) {
    if (vocab->entries[id].text) {
        return mq_fail(err, MQ_ERR_INPUT, "two tokens, \"%.64s\" and \"%.*s\", have the id %d",
                       vocab->entries[id].text, size < 64 ? (int)size : 64, text, id);
    }
    size_t slot = vocab_slot(vocab, text, size);
    if (vocab->slots[slot] >= 0) {
        return mq_fail(err, MQ_ERR_INPUT, "the token \"%.*s\" is there twice",
                       size < 64 ? (int)size : 64, text);
    }
    char *copy = vocab->text + vocab->text_used;
    memcpy(copy, text, size);
    copy[size] = '\0';
    vocab->text_used += size + 1;
    vocab->entries[id] = (mq_vocab_entry){copy, size};
    vocab->slots[slot] = id;
    vocab->count++;
    return MQ_OK;
}

/* The code point when the entry is exactly one character. */
static bool one_char(uint32_t *code_point, const mq_vocab_entry *entry) {
    return entry->text && entry->size > 0 && entry->size <= 4 &&
           mq_utf8_decode(code_point, entry->text, entry->size) == entry->size &&
           *code_point != MQ_UTF8_BAD;
}

mq_status mq_vocab_finish(mq_vocab *vocab, mq_error *err) {
    size_t pages = 1;
    uint32_t c;
    for (size_t id = 0; id < vocab->size; id++) {
        if (one_char(&c, &vocab->entries[id]) && vocab->char_page[c >> 8] == 0) {
            vocab->char_page[c >> 8] = (uint16_t)pages++;
        }
    }
    mq_status status =
        mq_new(&vocab->char_pages, pages, sizeof *vocab->char_pages, "the vocabulary", err);
    if (status) {
        return status;
    }
    memset(vocab->char_pages, 0xff, pages * sizeof *vocab->char_pages);
    for (size_t id = 0; id < vocab->size; id++) {
        if (one_char(&c, &vocab->entries[id])) {
            vocab->char_pages[vocab->char_page[c >> 8]][c & 255] = (int32_t)id;
        }
    }
    return MQ_OK;
}

void mq_vocab_free(mq_vocab *vocab) {
    mq_free(vocab->text);
    mq_free(vocab->entries);
    mq_free(vocab->slots);
    mq_free(vocab->char_pages);
    *vocab = (mq_vocab){0};
}

int32_t mq_vocab_find(const mq_vocab *vocab, const char *text, size_t size) {
    return vocab->slots[vocab_slot(vocab, text, size)];
}

/* --- merges ----------------------------------------------------------------------------------- */

mq_status mq_merges_init(mq_merges *merges, size_t count, mq_error *err) {
    size_t slots;
    if (!slot_count(&slots, count)) {
        return mq_fail_memory(err, "the merges", SIZE_MAX);
    }
    mq_status status = mq_new(&merges->slots, slots, sizeof *merges->slots, "the merges", err);
    if (!status) {
        status = mq_new(&merges->joints, slots, sizeof *merges->joints, "the merges", err);
    }
    if (status) {
        return status;
    }
    merges->slot_mask = merges->joint_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) {
        merges->slots[i].left = -1;
        merges->joints[i] = NO_JOINT;
    }
    return MQ_OK;
}

static size_t merge_slot(const mq_merges *merges, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t slot = (size_t)mix(key) & merges->slot_mask;
    while (merges->slots[slot].left >= 0 &&
           (merges->slots[slot].left != left || merges->slots[slot].right != right)) {
        slot = (slot + 1) & merges->slot_mask;
    }
    return slot;
}

static size_t joint_slot(const mq_merges *merges, uint64_t joint) {
    size_t slot = (size_t)mix(joint) & merges->joint_mask;
    while (merges->joints[slot] != NO_JOINT && merges->joints[slot] != joint) {
        slot = (slot + 1) & merges->joint_mask;
    }
    return slot;
}

static uint64_t joint_of(uint32_t first, uint32_t second) { return (uint64_t)first << 21 | second; }

static uint32_t first_char(const mq_vocab_entry *entry) {
    uint32_t c = MQ_UTF8_BAD;
    if (entry->size) {
        mq_utf8_decode(&c, entry->text, entry->size);
    }
    return c;
}

static uint32_t last_char(const mq_vocab_entry *entry) {
    uint32_t c = MQ_UTF8_BAD;
    size_t at = entry->size;
    while (at > 0 && ((unsigned char)entry->text[at - 1] & 0xc0) == 0x80) {
        at--;
    }
    if (at > 0) {
        mq_utf8_decode(&c, entry->text + at - 1, entry->size - at + 1);
    }
    return c;
}

/* A token that merging makes has, where its two halves meet, the joint that is added here, and
 * inside the halves those of the merges that made them; so the joints of all merges are all there
 * can be. */
void mq_merges_add(mq_merges *merges, bool *duplicate, const mq_vocab *vocab, int32_t left,
                   int32_t right, int32_t merged) {
    size_t slot = merge_slot(merges, left, right);
    *duplicate = merges->slots[slot].left >= 0;
    if (*duplicate) {
        return;
    }
    merges->slots[slot] = (mq_merge){left, right, (uint32_t)merges->count++, merged};
    uint32_t first = last_char(&vocab->entries[left]), second = first_char(&vocab->entries[right]);
    if (first != MQ_UTF8_BAD && second != MQ_UTF8_BAD) {
        uint64_t joint = joint_of(first, second);
        merges->joints[joint_slot(merges, joint)] = joint;
    }
}

void mq_merges_free(mq_merges *merges) {
    mq_free(merges->slots);
    mq_free(merges->joints);
    *merges = (mq_merges){0};
}

const mq_merge *mq_merges_find(const mq_merges *merges, int32_t left, int32_t right) {
    const mq_merge *merge = &merges->slots[merge_slot(merges, left, right)];
    return merge->left < 0 ? NULL : merge;
}

bool mq_merges_joins(const mq_merges *merges, uint32_t first, uint32_t second) {
    return merges->joints[joint_slot(merges, joint_of(first, second))] != NO_JOINT;
}
