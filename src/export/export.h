/* The table of formats that a slice can be written in: adding a format is adding a file, a value
 * of mq_slice_format, and a row of the table in slice.c. */
#ifndef MQ_EXPORT_EXPORT_H
#define MQ_EXPORT_EXPORT_H

#include "base/buffer.h"
#include "export/plan.h"

typedef struct mq_export_format {
    mq_format_info info;
    bool takes_dtype;       /* --dtype means something to it */
    bool may_unpack;        /* options->plain_embeddings means something to it */
    bool has_extra;         /* it holds the extra level of slice rule round-extra */
    bool mixes;             /* its layers may have different widths */
    const char *exact_with; /* what masters must be made with for it to hold their slices exactly,
                               for a warning; NULL: nothing helps */
    const char *library; /* the reader, as the hub's model cards name it: "mlx", "transformers" */
    const char *usage;   /* the lines that load it, for the model card */
    /* A paragraph below these, of how the reader computes this slice; NULL, or returns it: none. */
    const char *(*note)(const mq_plan *plan);
    /* Changes widths that no pattern gives to others that suit the format better, before the plan;
     * NULL: they stay what they are. */
    void (*choose_widths)(mq_mixture *mixture, const mq_slice_options *options);
    /* Adds to the plan everything that the format will hold; refuses (MQ_ERR_USAGE, in a line that
     * says what to use instead) what it cannot. Nothing has been written yet. */
    mq_status (*plan)(mq_plan *plan, mq_error *err);
    /* Writes the plan into job->output. Formats that are folders: mq_export_folder. */
    mq_status (*write)(mq_plan *plan, const struct mq_export_format *format, mq_error *err);
    /* Of folders: what config.json, which is the source's without any quantization, gets. */
    mq_status (*config)(cJSON *config, mq_plan *plan, mq_error *err);
    const char *suffix; /* of the output's name when it is one file; NULL: a folder */
    const char *magic;  /* how such a file begins: --force replaces no other */
} mq_export_format;

extern const mq_export_format mq_export_mlx, mq_export_gguf, mq_export_compressed_tensors,
    mq_export_gptq, mq_export_safetensors, mq_export_matquant;

/* mq_slice with blocks of so many bytes of a tensor, or of a row that is longer, where it has
 * MQ_STREAM_BYTES (store/folder.h); a multiple of 8, so that they are whole elements of any type.
 * The tensors have the same bytes whatever the blocks. */
mq_status mq_slice_in_blocks(mq_slice_report *report, const mq_slice_options *options,
                             size_t block_bytes, const mq_context *context, mq_error *err);

/* Writes a folder that a reader loads by its name alone: tensors in safetensors files, config.json,
 * the small files of the master, matquant.json with where the slice comes from and the CRC-32 of
 * every tensor, and README.md, the model card. */
mq_status mq_export_folder(mq_plan *plan, const mq_export_format *format, mq_error *err);
/* The element type that readers load plain weights in, into config.json: where it stands already
 * ("dtype", "torch_dtype" in files that older programs wrote), else as "dtype". */
mq_status mq_export_put_dtype(cJSON *config, mq_dtype dtype, mq_error *err);

/* Where the slice comes from: format, width, the master's name and digest, its recipe and sources,
 * and the tensors that are private to the width. The caller's. */
mq_status mq_export_provenance(cJSON **out, const mq_plan *plan, const mq_export_format *format,
                               mq_error *err);
/* The model card, Markdown without the hub's header; bits_per_weight as in the report. While
 * job->output is NULL it says that numbers may be inexact, but not how much. */
void mq_export_card_text(mq_buffer *card, const mq_plan *plan, const mq_export_format *format,
                         const cJSON *provenance);
/* That header: how the format is loaded, whether the slice reads images, and of "model_card" in the
 * provenance licence, languages and base model; the base model is what config.json calls itself, if
 * that is a name on the hub. */
void mq_export_card_header(mq_buffer *card, const mq_plan *plan, const mq_export_format *format,
                           const cJSON *provenance);
/* Both as README.md, after everything else was written. */
mq_status mq_export_card(const mq_plan *plan, const mq_export_format *format,
                         const cJSON *provenance, mq_error *err);

#endif
