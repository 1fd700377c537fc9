/* The master checkpoint: this header is the format's specification (version 1).
 *
 * A master is a Hugging Face checkpoint folder in which some linear layers are quantized. For a
 * quantized linear whose source tensor was P.weight [out, in] it holds instead
 *
 *   P.codes       U8  [out, in]       q, one byte a weight
 *   P.scales.wR   F16 [out, groups]   for each width R served (R in 2 ... 8, decimal)
 *   P.biases.wR   F16 [out, groups]
 *
 * groups divides in; group g of a row is the inputs [g·in/groups, (g+1)·in/groups). The r-bit model
 * is
 *
 *   s = q >> (8 - r)                            slice_rule "top"
 *   s = min((q + 2^(7-r)) >> (8 - r), 2^r - 1)  slice_rule "round", r < 8; s = q for 8
 *   s = (q + 2^(7-r)) >> (8 - r)                slice_rule "round-extra", r < 8; s = q for 8
 *   w = scale_r · s + bias_r                    both widened to float32, product and sum rounded
 *                                               to float32 one after the other
 *
 * "round" is MatQuant's, arXiv 2502.06786, eq. 6. "round-extra" is the same without the clamp, its
 * extra precision: s is one of the 2^r + 1 levels 0 ... 2^r, so that a reader which keeps slices
 * keeps r + 1 bits of each, and one which reads q needs no more than the line above.
 *
 * With zero_point "symmetric" the zero point is half the codes at every width, so that formats with
 * whole zero points (GPTQ, compressed-tensors) hold the r-bit model as it is:
 *
 *   bias_r = -2^(r-1) · scale_r exactly, so w = scale_r · (s - 2^(r-1))
 *
 * scale_r, which may be negative, has at most 8 significant bits, as many as bfloat16 has; where 8
 * bits are served no code is 0, so that they stand for -127 ... 127.
 *
 * The embedding and the head may be quantized like linear layers, but with no fewer than min_bits
 * bits: of a layer P that "embeddings" names, the r-bit model takes the slice, scales and biases of
 * R = max(r, min_bits) bits, and P.scales.wR and P.biases.wR are there for these R alone. Tied
 * embeddings are the head, too. Writers give these scales and biases at most 8 significant bits, so
 * that a slice whose activations are bfloat16 can have them in bfloat16; readers take any.
 *
 * A tensor NAME (a norm's weight) may be private to a width: then NAME.wR, of the dtype and shape
 * of NAME, stands beside it, and the r-bit model uses it in place of NAME. Every other tensor is
 * byte for byte the source's, under its name.
 *
 * config.json is the source's with one member added:
 *
 *   "quantization_config": {"quant_method": "matquant", "format_version": 1,
 *                           "slice_rule": "top" | "round" | "round-extra",
 *                           "zero_point": "float" | "symmetric" (not there: "float"),
 *                           "group_size": N (0: one group a row),
 *                           "widths": [8, ...] (served, descending),
 *                           "embeddings": {"min_bits": M, "layers": [P, ...]} (not there: none is
 *                                         quantized),
 *                           "ignored": [names P of the blocks' linear layers not quantized]}
 *
 * matquant.json is the provenance (MQ_PROVENANCE_FILE): "format_version", "tool", "recipe",
 * "source", "calibration", "blas", "blocks" (losses), "tensors": {NAME: {"crc32": "8
 * hexadecimal digits"}} for every tensor of the folder, and "files": {NAME: {"sha256": DIGEST}} for
 * config.json and what was copied beside it (not there: written by an earlier program). `eval
 * --record` adds to it
 *
 *   "evaluations": [{"bits": R, "text": {"file": NAME, "sha256": DIGEST}, "windows": N,
 *                    "seq_len": N, "bos_added": true | false, "perplexity": X, "nll": X,
 *                    "nll_stderr": X, "tool": "matquant VERSION"}, ...]
 *
 * with "reference": {"model": NAME, "perplexity": X}, "kl" (nats a token) and "top1_agreement"
 * where it was compared with one; the members are those of mq_eval_result. "bos_added"
 * says whether windows begin with a token that was put there. A file NAME, here and above, is
 * without folders, with U+FFFD for what is not UTF-8; its DIGEST is of the file as it was read.
 *
 * A reader must reject (and mq_verify does): another quant_method or a newer format_version; a
 * slice_rule, zero_point, width or group_size that is none of the above; codes that are not U8 of
 * two dimensions; scales or biases of a served width that are missing, not F16, not [out, groups]
 * with groups dividing in, or differ in shape from one another; both P.codes and P.weight; a scale
 * or bias that is not finite, or not as a symmetric zero point has it; scales or biases without
 * codes, or of a width that is not served; a NAME.wR of a served width beside a NAME of another
 * dtype or shape. A layer that "embeddings" names must have codes. Unknown members of config.json's
 * object and of matquant.json are ignored. */
#ifndef MATQUANT_FORMAT_H
#define MATQUANT_FORMAT_H

#define MQ_FORMAT_VERSION 1
#define MQ_QUANT_METHOD "matquant"
#define MQ_PROVENANCE_FILE "matquant.json"
#define MQ_MIN_WIDTH 2
#define MQ_MAX_WIDTH 8
#define MQ_MAX_WIDTHS 7 /* so many are there */

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

/* Bits that hold such a slice. */
static inline unsigned mq_slice_bits(unsigned width, mq_slice_rule rule) {
    return rule == MQ_SLICE_ROUND_EXTRA && width < MQ_MAX_WIDTH ? width + 1u : width;
}

#ifdef __cplusplus
}
#endif
#endif
