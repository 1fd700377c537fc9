/* The master checkpoint: this header is the format's specification (version 1).
 *
 * A master is a Hugging Face checkpoint folder in which some linear layers are quantized. In place
 * of the source tensor P.weight [out, in] of such a layer, it holds
 *
 *   P.codes       U8  [out, in]       q, one byte per weight
 *   P.scales.wR   F16 [out, groups]   for each width R served (R in 2 ... 8, decimal)
 *   P.biases.wR   F16 [out, groups]
 *
 * groups divides in; group g of a row is the inputs [g·in/groups, (g+1)·in/groups). The r-bit model
 * is
 *
 *   s = q >> (8 - r)                            slice_rule "top"
 *   s = min((q + 2^(7-r)) >> (8 - r), 2^r - 1)  slice_rule "round", r < 8; s = q for 8
 *   s = (q + 2^(7-r)) >> (8 - r)                slice_rule "round-extra", r < 8; s = q for 8
 *   w = scale_r · s + bias_r                    both widened to float32; first the product and
 *                                               then the sum is rounded to float32
 *
 * "round" is MatQuant's rule, arXiv 2502.06786, eq. 6. "round-extra" is the same without the clamp,
 * which is that paper's extra precision: s is one of the 2^r + 1 levels 0 ... 2^r. A reader that
 * stores slices therefore needs r + 1 bits for each; a reader that uses q needs only the line
 * above.
 *
 * With zero_point "symmetric", the zero point is the middle of the code range at every width, so
 * that formats with whole zero points (GPTQ, compressed-tensors) hold the r-bit model exactly:
 *
 *   bias_r = -2^(r-1) · scale_r exactly, so w = scale_r · (s - 2^(r-1))
 *
 * scale_r may be negative and has at most 8 significant bits, as many as bfloat16 has. If 8 bits
 * are served, no code is 0, so that the codes stand for -127 ... 127.
 *
 * The embedding and the head may be quantized like linear layers, but with no fewer than min_bits
 * bits. For a layer P that "embeddings" names, the r-bit model uses the slice, scales and biases of
 * R = max(r, min_bits) bits, and P.scales.wR and P.biases.wR exist only for these R. Tied
 * embeddings are the head, too. Writers give these scales and biases at most 8 significant bits, so
 * that a slice whose activations are bfloat16 can store them in bfloat16; readers accept any.
 *
 * A width may have its own copy of a tensor NAME (a norm's weight): a tensor NAME.wR with the dtype
 * and shape of NAME, next to it, which the r-bit model uses in place of NAME. Every other tensor is
 * byte for byte the source's, under the same name.
 *
 * config.json is the source's with one member added:
 *
 *   "quantization_config": {"quant_method": "matquant", "format_version": 1,
 *                           "slice_rule": "top" | "round" | "round-extra",
 *                           "zero_point": "float" | "symmetric" (absent: "float"),
 *                           "group_size": N (0: one group per row),
 *                           "widths": [8, ...] (served, descending),
 *                           "embeddings": {"min_bits": M, "layers": [P, ...]} (absent: none is
 *                                         quantized),
 *                           "ignored": [names P of the blocks' linear layers not quantized]}
 *
 * matquant.json is the provenance (MQ_PROVENANCE_FILE): "format_version", "tool", "recipe",
 * "source", "calibration", "blas", "blocks" (losses), "tensors": {NAME: {"crc32": "8
 * hexadecimal digits", "dtype": T, "shape": [N, ...]}} for every tensor of the folder (dtype and
 * shape as in its header, absent if an earlier program wrote it), "files": {NAME: {"sha256":
 * DIGEST}} for config.json and the files that were copied (absent likewise), and "model_card"
 * (absent if there is none of it): what the front matter of the source's README.md says under
 * "license", "license_name", "license_link", "language" and "base_model", each a string or a list
 * of strings. `eval --record` adds
 *
 *   "evaluations": [{"bits": R, "text": {"file": NAME, "sha256": DIGEST}, "windows": N,
 *                    "seq_len": N, "bos_added": true | false, "perplexity": X, "nll": X,
 *                    "nll_stderr": X, "tool": "matquant VERSION"}, ...]
 *
 * and, if the model was compared with a reference, "reference": {"model": NAME, "perplexity": X},
 * "kl" (nats per token) and "top1_agreement". The members are those of mq_eval_result; "bos_added"
 * says whether a beginning-of-sequence token was put before each window. A file NAME, here and
 * above, has no folders, and has U+FFFD for anything that is not UTF-8; its DIGEST is that of the
 * file as it was read.
 *
 * A reader must reject (and mq_verify does): another quant_method or a newer format_version; a
 * slice_rule, zero_point, width or group_size that is none of the above; codes that are not U8 with
 * two dimensions; scales or biases of a served width that are missing, not F16, not [out, groups]
 * with groups dividing in, or that differ in shape from one another; both P.codes and P.weight; a
 * scale or bias that is not finite, or that does not agree with a symmetric zero point; scales or
 * biases without codes, or of a width that is not served; a NAME.wR of a served width whose dtype
 * or shape differs from that of NAME. A layer that "embeddings" names must have codes. Unknown
 * members of "quantization_config" and of matquant.json are ignored. */
#ifndef MATQUANT_FORMAT_H
#define MATQUANT_FORMAT_H

#define MQ_FORMAT_VERSION 1
#define MQ_QUANT_METHOD "matquant"
#define MQ_PROVENANCE_FILE "matquant.json"
#define MQ_MIN_WIDTH 2
#define MQ_MAX_WIDTH 8
#define MQ_MAX_WIDTHS 7 /* the number of widths from 2 to 8 */

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mq_slice_rule { MQ_SLICE_TOP, MQ_SLICE_ROUND, MQ_SLICE_ROUND_EXTRA } mq_slice_rule;
typedef enum mq_zero_point { MQ_ZERO_FLOAT, MQ_ZERO_SYMMETRIC } mq_zero_point;

/* The slice of `width` bits of a code, 2 <= width <= 8. */
static inline unsigned mq_slice_code(unsigned code, unsigned width, mq_slice_rule rule) {
    if (width >= MQ_MAX_WIDTH) {
        return code;
    }
    if (rule == MQ_SLICE_TOP) {
        return code >> (MQ_MAX_WIDTH - width);
    }
    const unsigned slice = (code + (1u << (MQ_MAX_WIDTH - 1u - width))) >> (MQ_MAX_WIDTH - width);
    const unsigned last = (1u << width) - (rule == MQ_SLICE_ROUND ? 1u : 0u);
    return slice < last ? slice : last;
}

/* The number of bits that such a slice needs. */
static inline unsigned mq_slice_bits(unsigned width, mq_slice_rule rule) {
    return rule == MQ_SLICE_ROUND_EXTRA && width < MQ_MAX_WIDTH ? width + 1u : width;
}

#ifdef __cplusplus
}
#endif
#endif
