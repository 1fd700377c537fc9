/* GGUF, one file: what llama.cpp reads.
 *
 * Slices of 4 and 5 bits are exact (Q4_1, Q5_1 have a float16 offset as our groups have). 8 bits
 * are fitted to Q8_0, 6 and 3 to Q6_K and Q3_K, which have no offset, and 2 to Q2_K. Of a master
 * with a symmetric zero point 4, 5 and 8 bits are exact in types without an offset (Q4_0, Q5_0,
 * Q8_0). Where groups are a whole row or another multiple of 256, K-quants hold 2, 4 and 5 bits
 * exactly, the latter two in fewer bytes, and of a symmetric master also 3 and 6 (gguf_types.c
 * chooses). A layer whose rows a type's blocks do not divide is stored in another, 2 and 3 bits
 * in Q4_1, 6 bits in Q8_0, the rest in F16, and takes the widest width that is no larger there
 * unless --layer-bits gives it one. Embeddings and head that are not quantized keep their element
 * type, norms and biases become F32, as llama.cpp wants them. With --dtype all matrices are plain
 * (gguf_plain.h).
 *
 * What llama.cpp does otherwise than Hugging Face: it rotates neighbouring rows of q and k in
 * Llama, so these rows are put in that order; Gemma's norms multiply by the weight itself, so 1 is
 * added; llama3's rotary scaling is a tensor of factors, and longrope's are two. */
#include "export/export.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "export/gguf_model.h"
#include "export/gguf_plain.h"
#include "export/gguf_types.h"
#include "export/stream.h"
#include "store/folder.h"
#include "store/names.h"

enum { GGUF_VERSION = 3 };

#define EMBEDDING "token_embd.weight"
#define HEAD "output.weight"

static const char *const linear_names[MQ_LINEAR_COUNT] = {
    [MQ_Q] = "attn_q",      [MQ_K] = "attn_k",  [MQ_V] = "attn_v",      [MQ_O] = "attn_output",
    [MQ_GATE] = "ffn_gate", [MQ_UP] = "ffn_up", [MQ_DOWN] = "ffn_down",
};

static const char *const norm_names[MQ_NORM_COUNT] = {
    [MQ_NORM_INPUT] = "attn_norm",  [MQ_NORM_POST_ATTN] = "post_attention_norm",
    [MQ_NORM_PRE_FFN] = "ffn_norm", [MQ_NORM_POST_FFN] = "post_ffw_norm",
    [MQ_NORM_Q] = "attn_q_norm",    [MQ_NORM_K] = "attn_k_norm",
};

/* --- rows ------------------------------------------------------------------------------------- */

/* Rows of the source's bytes, in the order that llama.cpp wants them. */
static mq_status fill_rows(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                           size_t count, mq_error *err) {
    (void)plan;
    const mq_tensor_info *source = piece->sources[0];
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const size_t from = mq_source_row(piece, first + i) * piece->row_bytes;
        status = mq_stream_check_finite(source, from, piece->row_bytes, err);
        memcpy(out + i * piece->row_bytes, source->data + from, piece->row_bytes);
    }
    return status;
}

/* A vector as F32, one number a row; `repeat` is added: 1 to Gemma's norms. */
static mq_status fill_vector(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                             size_t count, mq_error *err) {
    (void)plan;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        float value = 0;
        status =
            mq_tensor_read_f32(&value, piece->sources[0], mq_source_row(piece, first + i), 1, err);
        value += (float)piece->repeat;
        memcpy(out + i * sizeof value, &value, sizeof value);
    }
    return status;
}

/* llama3's rotary scaling: what each frequency is divided by (transformers:
 * ROPE_INIT_FUNCTIONS["llama3"]). */
static mq_status fill_rope_factors(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                                   size_t count, mq_error *err) {
    (void)piece;
    (void)err;
    const mq_config *config = plan->job->config;
    const mq_rope *rope = &config->rope[0];
    const double length = (double)rope->original_max_position_embeddings;
    for (size_t i = 0; i < count; i++) {
        const double exponent = 2 * (double)(first + i) / (double)mq_config_rotary_dim(config);
        const double wavelength = 2 * M_PI * pow(rope->rope_theta, exponent);
        const double smooth = (length / wavelength - rope->low_freq_factor) /
                              (rope->high_freq_factor - rope->low_freq_factor);
        float factor = (float)(1 / ((1 - smooth) / rope->factor + smooth));
        if (wavelength < length / rope->high_freq_factor) {
            factor = 1;
        } else if (wavelength > length / rope->low_freq_factor) {
            factor = (float)rope->factor;
        }
        memcpy(out + i * sizeof factor, &factor, sizeof factor);
    }
    return MQ_OK;
}

/* One of longrope's lists: the short one, or, where `repeat` is not 0, the long one. */
static mq_status fill_longrope_factors(unsigned char *out, mq_plan *plan, mq_piece *piece,
                                       size_t first, size_t count, mq_error *err) {
    (void)err;
    const mq_rope *rope = &plan->job->config->rope[0];
    const double *factors = piece->repeat != 0 ? rope->long_factor : rope->short_factor;
    for (size_t i = 0; i < count; i++) {
        const float factor = (float)factors[first + i];
        memcpy(out + i * sizeof factor, &factor, sizeof factor);
    }
    return MQ_OK;
}

/* --- the plan: tensors ------------------------------------------------------------------------ */

static mq_status find(const mq_tensor_info **out, bool *is_private, const mq_plan *plan,
                      const char *name, mq_error *err) {
    const mq_tensor_info *info = mq_tensors_find(mq_master_tensors(plan->job->master), name);
    if (info == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, plan->job->options->master, name, "missing");
    }
    *out = mq_plan_source(is_private, plan, info);
    return mq_dtype_is_weight((*out)->dtype)
               ? MQ_OK
               : mq_fail_tensor(err, MQ_ERR_USAGE, info->file, name,
                                "is %s, which GGUF holds no weights in; use --format safetensors",
                                mq_dtype_name((*out)->dtype));
}

/* A matrix that is not quantized, rows as they are (heads 0) or for llama.cpp's rotation. */
static mq_status add_matrix(mq_plan *plan, const char *source, const char *name, size_t heads,
                            mq_error *err) {
    mq_piece piece = {.heads = heads};
    const mq_tensor_info *info = NULL;
    mq_status status = find(&info, &piece.is_private, plan, source, err);
    if (status != MQ_OK) {
        return status;
    }
    piece.type = mq_gguf_type_of(info->dtype);
    piece.spec.dims = 2;
    piece.spec.shape[0] = piece.rows = info->shape[0];
    piece.spec.shape[1] = info->shape[1];
    piece.row_bytes = info->shape[1] * mq_dtype_size(info->dtype);
    piece.fill = fill_rows;
    piece.sources[0] = info;
    const mq_gguf *own = plan->own;
    if (own->is_plain) {
        mq_gguf_make_plain(&piece, own->dtype);
    }
    return mq_plan_add(plan, name, &piece, err);
}

static mq_status add_vector(mq_plan *plan, const char *source, const char *name, size_t heads,
                            bool plus_one, mq_error *err) {
    mq_piece piece = {.type = MQ_GGML_F32,
                      .row_bytes = sizeof(float),
                      .fill = fill_vector,
                      .heads = heads,
                      .repeat = plus_one};
    const mq_tensor_info *info = NULL;
    mq_status status = find(&info, &piece.is_private, plan, source, err);
    if (status != MQ_OK) {
        return status;
    }
    piece.spec.dims = 1;
    piece.spec.shape[0] = piece.rows = info->elements;
    piece.sources[0] = info;
    return mq_plan_add(plan, name, &piece, err);
}

static bool has_width(const mq_gguf *own, unsigned width) { return own->is_plain || width != 7; }

static mq_status add_quantized(mq_plan *plan, const mq_master_view *view, const char *name,
                               size_t heads, mq_error *err) {
    const mq_gguf *own = plan->own;
    const unsigned asked = mq_mixture_asked(plan->job->mixture, view);
    if (!has_width(own, asked)) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, view->codes->file, view->codes->name,
                              "takes %u bits, which GGUF has not: it has 2, 3, 4, 5, 6 and 8; use "
                              "--dtype f16 for plain weights",
                              asked);
    }
    const mq_ggml_type type = mq_gguf_type_of_linear(plan, view);
    mq_piece piece = {.spec = {.dims = 2, .shape = {view->out, view->in}},
                      .type = type,
                      .rows = view->out,
                      .row_bytes = mq_ggml_row_bytes(type, view->in),
                      .fill = mq_gguf_fill_linear,
                      .heads = heads,
                      .is_inexact = !mq_gguf_holds_exactly(type, plan, view),
                      .takes_values = mq_gguf_takes_values(type, plan, view)};
    mq_piece_reads_all(&piece, plan, view);
    if (own->is_plain) {
        mq_gguf_make_plain(&piece, own->dtype);
    }
    plan->quantized_weights += view->out * view->in;
    return mq_plan_add(plan, name, &piece, err);
}

/* A matrix of the model, quantized or not. */
static mq_status add_weight(mq_plan *plan, const char *source, const char *name, size_t heads,
                            mq_error *err) {
    const mq_name parsed = mq_name_parse(source);
    const mq_master_view *view = mq_master_find(plan->job->master, parsed.stem);
    return view != NULL ? add_quantized(plan, view, name, heads, err)
                        : add_matrix(plan, source, name, heads, err);
}

static mq_status add_linear(mq_plan *plan, size_t layer, mq_linear linear, mq_error *err) {
    const mq_config *config = plan->job->config;
    const char *fused = mq_gguf_arch_of(plan)->fused[linear];
    const char *own = fused != NULL ? fused : linear_names[linear];
    size_t heads = 0;
    if (mq_config_linear_place(config, linear).first > 0) { /* it came with the first */
        return MQ_OK;
    }
    if (mq_gguf_arch_of(plan)->interleaved && (linear == MQ_Q || linear == MQ_K)) {
        heads = linear == MQ_Q ? config->num_attention_heads : config->num_key_value_heads;
    }
    char source[MQ_NAME_SIZE], name[MQ_NAME_SIZE];
    mq_config_linear_name(source, config, layer, linear, "weight");
    snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, own);
    mq_status status = add_weight(plan, source, name, heads, err);
    if (status == MQ_OK && mq_config_has_bias(config, linear)) {
        mq_config_linear_name(source, config, layer, linear, "bias");
        snprintf(name, sizeof name, "blk.%zu.%s.bias", layer, own);
        status = add_vector(plan, source, name, heads, false, err);
    }
    return status;
}

static mq_status add_layer(mq_plan *plan, size_t layer, mq_error *err) {
    const mq_config *config = plan->job->config;
    mq_status status = MQ_OK;
    for (int i = 0; status == MQ_OK && i < MQ_LINEAR_COUNT; i++) {
        status = add_linear(plan, layer, (mq_linear)i, err);
    }
    for (int i = 0; status == MQ_OK && i < MQ_NORM_COUNT; i++) {
        if (mq_config_norm_size(config, (mq_norm)i) != 0) {
            char source[MQ_NAME_SIZE], name[MQ_NAME_SIZE];
            mq_config_norm_name(source, config, layer, (mq_norm)i);
            snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, norm_names[i]);
            status = add_vector(plan, source, name, 0, config->arch->norm_plus_one, err);
        }
    }
    return status;
}

/* What each frequency is divided by. */
static mq_status add_factors(mq_plan *plan, const char *name, mq_fill_rows *fill, size_t repeat,
                             mq_error *err) {
    const size_t count = mq_config_rotary_dim(plan->job->config) / 2;
    const mq_piece piece = {.spec = {.dims = 1, .shape = {count}},
                            .type = MQ_GGML_F32,
                            .rows = count,
                            .row_bytes = sizeof(float),
                            .fill = fill,
                            .repeat = repeat};
    return mq_plan_add(plan, name, &piece, err);
}

static mq_status add_rope(mq_plan *plan, mq_error *err) {
    const mq_rope_type type = plan->job->config->rope[0].type;
    if (type == MQ_ROPE_LLAMA3) {
        return add_factors(plan, "rope_freqs.weight", fill_rope_factors, 0, err);
    }
    if (type != MQ_ROPE_LONGROPE) {
        return MQ_OK;
    }
    const mq_status status =
        add_factors(plan, "rope_factors_long.weight", fill_longrope_factors, 1, err);
    return status == MQ_OK
               ? add_factors(plan, "rope_factors_short.weight", fill_longrope_factors, 0, err)
               : status;
}

static mq_status add_tensors(mq_plan *plan, mq_error *err) {
    const mq_config *config = plan->job->config;
    const mq_layout *layout = mq_config_layout(config);
    mq_status status = add_weight(plan, layout->embedding, EMBEDDING, 0, err);
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        status = add_layer(plan, layer, err);
    }
    if (status == MQ_OK) {
        status = add_vector(plan, layout->final_norm, "output_norm.weight", 0,
                            config->arch->norm_plus_one, err);
    }
    if (status == MQ_OK && !config->tie_word_embeddings) {
        status = add_weight(plan, layout->head, HEAD, 0, err);
    }
    return status == MQ_OK ? add_rope(plan, err) : status;
}

static void free_gguf(void *own) {
    mq_free(((mq_gguf *)own)->meta.bytes.text);
    mq_free(own);
}

static mq_status check_options(const mq_gguf *own, const mq_plan *plan, mq_error *err) {
    if (!has_width(own, plan->job->width)) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "GGUF has no 7 bits; use --bits 2, 3, 4, 5, 6 or 8, --dtype f16 for plain "
                       "weights, or --format matquant");
    }
    if (plan->job->options->max_shard_size != 0) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--max-shard-size: a GGUF file is one file; llama.cpp's llama-gguf-split "
                       "splits it");
    }
    return MQ_OK;
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    mq_gguf *own = mq_calloc(1, sizeof *own);
    if (own == NULL) {
        return mq_fail_memory(err, "the plan", sizeof *own);
    }
    plan->own = own;
    plan->free_own = free_gguf;
    own->is_plain = plan->job->options->dtype != MQ_SLICE_DTYPE_SOURCE;
    own->dtype = mq_plan_dtype(plan);
    mq_status status = check_options(own, plan, err);
    if (status == MQ_OK) {
        status = mq_gguf_check_model(own, plan, err);
    }
    if (status == MQ_OK) {
        status = add_tensors(plan, err);
    }
    return status == MQ_OK ? mq_gguf_make_meta(&own->meta, plan, err) : status;
}

/* --- the file --------------------------------------------------------------------------------- */

static size_t aligned(size_t bytes) {
    return (bytes + MQ_GGUF_ALIGNMENT - 1) / MQ_GGUF_ALIGNMENT * MQ_GGUF_ALIGNMENT;
}

typedef struct file {
    mq_writer *writer;
    size_t *offsets; /* [count] of the pieces' data, from the beginning of the file */
    size_t end;
} file;

/* Everything before the data: magic, metadata, and a line for each tensor, its dimensions from the
 * innermost on. */
static void put_head(mq_buffer *head, const mq_plan *plan, const mq_gguf_meta *meta, file *out) {
    mq_buffer_put_text(head, "GGUF");
    mq_gguf_put_u32(head, GGUF_VERSION);
    mq_gguf_put_u64(head, plan->count);
    mq_gguf_put_u64(head, meta->count);
    mq_buffer_put(head, meta->bytes.text, meta->bytes.length);
    size_t offset = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        mq_gguf_put_string(head, piece->spec.name, strlen(piece->spec.name));
        mq_gguf_put_u32(head, (uint32_t)piece->spec.dims);
        for (size_t k = piece->spec.dims; k-- > 0;) {
            mq_gguf_put_u64(head, piece->spec.shape[k]);
        }
        mq_gguf_put_u32(head, piece->type);
        mq_gguf_put_u64(head, offset);
        out->offsets[i] = offset;
        offset = aligned(offset + piece->rows * piece->row_bytes);
    }
    while (!head->failed && head->length % MQ_GGUF_ALIGNMENT != 0) {
        mq_buffer_put(head, "", 1);
    }
    for (size_t i = 0; i < plan->count; i++) {
        out->offsets[i] += head->length;
    }
    out->end = offset + head->length;
}

static mq_status put_part(void *user, size_t index, size_t offset, const void *data, size_t bytes,
                          mq_error *err) {
    const file *self = user;
    return mq_write_at(self->writer, self->offsets[index] + offset, data, bytes, err);
}

static mq_status write_file(mq_plan *plan, const mq_gguf_meta *meta, file *out, mq_error *err) {
    mq_buffer head = {0};
    put_head(&head, plan, meta, out);
    mq_status status = head.failed ? mq_fail_memory(err, "the head of the file", head.capacity)
                                   : mq_writer_open(&out->writer, plan->job->output,
                                                    mq_output_file_name(plan->job->output), err);
    if (status == MQ_OK) {
        status = mq_write_at(out->writer, 0, head.text, head.length, err);
    }
    mq_free(head.text);
    if (status ==
        MQ_OK) { /* between tensors the file has holes, which read as the zeros they are */
        status = mq_write_at(out->writer, out->end - 1, "", 1, err);
    }
    if (status == MQ_OK) {
        status = mq_stream_pieces(plan, put_part, out, err);
    }
    if (status == MQ_OK) {
        status = mq_writer_close(out->writer, err);
        out->writer = NULL;
    }
    mq_writer_abandon(out->writer);
    return status;
}

static bool is_embedding_or_head(const mq_piece *piece) {
    return strcmp(piece->spec.name, EMBEDDING) == 0 || strcmp(piece->spec.name, HEAD) == 0;
}

/* --dtype is no remedy: it makes all matrices plain. */
static void warn_of_float32_matrices(const mq_plan *plan) {
    size_t bytes = 0;
    bool embeddings = false;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        const bool is_copied = piece->linear == NULL && piece->spec.dims == 2;
        if (is_copied && piece->type == MQ_GGML_F32) {
            bytes += piece->rows * piece->row_bytes;
            embeddings = embeddings || is_embedding_or_head(piece);
        }
    }
    if (bytes > 0) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "%.3g %% of the slice's bytes are matrices in float32, as they are in the source%s",
               100.0 * (double)bytes / (double)plan->bytes,
               embeddings ? "; quantize --embeddings 8 or nested makes embeddings smaller" : "");
    }
}

static mq_status write_slice(mq_plan *plan, const mq_export_format *format, mq_error *err) {
    (void)format;
    file out = {0};
    mq_status status =
        mq_new(&out.offsets, plan->count, sizeof *out.offsets, "the list of tensors", err);
    if (status == MQ_OK) {
        const mq_gguf *own = plan->own;
        if (!own->is_plain) {
            mq_gguf_warn_of_fallbacks(plan);
            warn_of_float32_matrices(plan);
        }
        status = write_file(plan, &own->meta, &out, err);
    }
    mq_free(out.offsets);
    return status;
}

const mq_export_format mq_export_gguf = {
    .info = {"gguf",
             "one file for llama.cpp, whose name must end in .gguf (upper or lower case): 4 and 5 "
             "bits are exact, and 2, 3, 6 and 8 are fitted to llama.cpp's types; some of these are "
             "exact, too, if a group is a whole row or the zero point is symmetric (see the "
             "manual); layers whose rows fit no type of 2, 3 or 6 bits have more bits in the same "
             "bytes, unless --layer-bits names them; with --dtype plain weights of 2 to 8 bits",
             "2, 3, 4, 5, 6, 8"},
    .takes_dtype = true,
    .mixes = true,
    .library = "llama.cpp",
    .usage = "    from llama_cpp import Llama\n"
             "    model = Llama(\"path/to/this/file.gguf\")\n"
             "    print(model(\"Once upon a time\", max_tokens=32)[\"choices\"][0][\"text\"])\n",
    .choose_widths = mq_gguf_choose_widths,
    .plan = make_plan,
    .write = write_slice,
    .suffix = ".gguf",
    .magic = "GGUF",
};
