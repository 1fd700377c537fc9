/* The matrix products of a block's linear layers, of float32 operands: forward and input gradient
 * for a slab of tokens in tiles, weight gradient over all tokens in pieces; those of bfloat16
 * operands are block_products_bf16.c's. */
#include <assert.h>
#include <omp.h>

#include "model/activations.h"
#include "tensor/gemm.h"

static bool all_bf16(const mq_block_weights *weights) {
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        if (!weights->linear_bf16[linear]) {
            return false;
        }
    }
    return true;
}

const mq_products *mq_block_bf16(const mq_block_weights *weights,
                                 const mq_activations *activations) {
    if (!weights->linear_bf16[0]) {
        return NULL;
    }
    assert(activations->products.gemm && all_bf16(weights));
    return &activations->products;
}

/* --- slabs and tiles -------------------------------------------------------------------------- */

/* Tiles of OpenBLAS are fast from some hundred rows and columns on, since both operands are packed
 * for each; a few rows or columns more than these gain little. */
#define TILE_ROWS 512
#define LEAST_ROWS 256
#define TILE_STEP 32 /* rows and columns of a tile are a multiple: kernels make 4 to 32 at once */

size_t mq_block_slab(const mq_config *config, size_t tokens) {
    /* Of small models more tokens, which have tiles for more threads then: what 64 MiB of scratch
     * hold, but two tiles' at least. */
    const size_t floats = config->hidden_size + 2 * config->intermediate_size;
    size_t slab = ((size_t)1 << 24) / floats / TILE_ROWS * TILE_ROWS;
    slab = slab < 2 * TILE_ROWS ? 2 * TILE_ROWS : slab > 8 * TILE_ROWS ? 8 * TILE_ROWS : slab;
    return tokens < slab ? tokens : slab;
}

bool mq_block_in_runs(const mq_config *config) {
    /* SmolLM2-135M's 3,648 and Gemma 3 270M's 4,736 gain (tests/bench/RESULTS.md, "Speed"), larger
     * ones have not been measured. */
    return config->hidden_size + 2 * config->intermediate_size <= 8192;
}

size_t mq_block_slab_floats(const mq_config *config, size_t tokens, bool bf16) {
    return tokens * (config->hidden_size + (bf16 ? 0 : 2 * config->intermediate_size));
}

void mq_block_place_slab(mq_block_pass *pass, float *scratch, size_t tokens) {
    pass->slab_hidden = scratch;
    if (!pass->bf16) {
        pass->slab_ffn[0] = scratch + tokens * pass->config->hidden_size;
        pass->slab_ffn[1] = pass->slab_ffn[0] + tokens * pass->config->intermediate_size;
    }
}

size_t mq_block_tile_rows(size_t tokens, bool bf16) {
    return mq_smaller(tokens, bf16 ? MQ_RUN_ROWS : TILE_ROWS);
}

static size_t in_pieces(size_t count, size_t pieces) {
    const size_t piece = (count + pieces - 1) / pieces;
    return (piece + TILE_STEP - 1) / TILE_STEP * TILE_STEP;
}

mq_tiles mq_block_tiles(size_t rows, size_t columns, size_t together) {
    /* So many tiles that as many threads have work are worth columns no narrower than these. */
    static const struct { size_t tiles, columns; } wanted[] = {{8, 192}, {16, 512}, {32, 1024}};
    size_t down = (rows + TILE_ROWS - 1) / TILE_ROWS, across = 1;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        while (down * across < wanted[i].tiles && together / (2 * across) >= wanted[i].columns) {
            across *= 2;
        }
    }
    while (down * across < 8 && rows / (2 * down) >= LEAST_ROWS) {
        down *= 2;
    }
    /* Layers that are narrow themselves: small tiles that keep a few threads busy, whatever they
     * cost. */
    while (down * across < 4 && rows / (2 * down) >= 2 * TILE_STEP) {
        down *= 2;
    }
    const size_t width = (together + across - 1) / across;
    const size_t pieces = columns < width ? 1 : (columns + width / 2) / width; /* the nearest */
    mq_tiles tiles = {.rows = in_pieces(rows, down), .columns = in_pieces(columns, pieces)};
    tiles.down = (rows + tiles.rows - 1) / tiles.rows;
    tiles.across = (columns + tiles.columns - 1) / tiles.columns;
    return tiles;
}

/* One tile: c[rows, columns] begins at `row` of the slab and at `column`. */
typedef struct tile_view {
    size_t row, rows, column, columns;
} tile_view;

static tile_view tile_at(const mq_tiles *tiles, size_t index, size_t rows, size_t columns) {
    tile_view tile = {.row = index / tiles->across * tiles->rows,
                      .column = index % tiles->across * tiles->columns};
    tile.rows = rows - tile.row < tiles->rows ? rows - tile.row : tiles->rows;
    tile.columns = columns - tile.column < tiles->columns ? columns - tile.column : tiles->columns;
    return tile;
}

/* --- the shapes of products ------------------------------------------------------------------- */

static mq_gemm_shape forward_shape(const mq_config *config, mq_linear linear,
                                   const tile_view *tile) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_gemm_shape){.m = tile->rows,
                           .n = tile->columns,
                           .k = in,
                           .lda = in,
                           .ldb = in,
                           .ldc = out,
                           .trans_b = true};
}

static mq_gemm_shape backward_shape(const mq_config *config, mq_linear linear,
                                    const tile_view *tile, bool accumulate) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_gemm_shape){.m = tile->rows,
                           .n = tile->columns,
                           .k = out,
                           .lda = out,
                           .ldb = in,
                           .ldc = in,
                           .accumulate = accumulate};
}

/* Pieces of weight gradients are at most so many rows or columns, along the longer side. Of less
 * than that their products are slower, and of more there would be too few pieces for the threads.
 */
#define PIECE 512

static size_t piece_count(const mq_config *config, mq_linear linear) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return ((out > in ? out : in) + PIECE - 1) / PIECE;
}

size_t mq_block_pieces(const mq_block_pass *pass, mq_linear linear) {
    return pass->bf16 ? mq_block_pieces_bf16(pass->config, linear)
                      : piece_count(pass->config, linear);
}

/* dw[rows, columns] of a piece begins at its `row` and `column`. */
typedef struct piece_view {
    size_t row, column;
    mq_gemm_shape shape;
} piece_view;

static piece_view piece_of(const mq_config *config, mq_linear linear, size_t piece, size_t tokens) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    const bool by_rows = out > in;
    const size_t side = by_rows ? out : in, pieces = piece_count(config, linear);
    const size_t begin = side * piece / pieces, count = side * (piece + 1) / pieces - begin;
    piece_view view = {.row = by_rows ? begin : 0, .column = by_rows ? 0 : begin};
    view.shape = (mq_gemm_shape){.m = by_rows ? count : out,
                                 .n = by_rows ? in : count,
                                 .k = tokens,
                                 .lda = out,
                                 .ldb = in,
                                 .ldc = in,
                                 .trans_a = true};
    return view;
}

const mq_together mq_block_qkv = {{MQ_Q, MQ_K, MQ_V}, 3}, mq_block_o = {{MQ_O}, 1},
                  mq_block_gate_up = {{MQ_GATE, MQ_UP}, 2}, mq_block_down = {{MQ_DOWN}, 1};

static size_t outputs_of(const mq_config *config, const mq_together *group) {
    size_t sum = 0;
    for (size_t i = 0; i < group->count; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, group->linears[i]);
        sum += out;
    }
    return sum;
}

/* --- products --------------------------------------------------------------------------------- */

/* A tile of y[rows, out]; row: the slab's first token. */
static void forward_tile(float *y, const mq_block_pass *pass, mq_linear linear, size_t row,
                         const tile_view *tile) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const float *x = mq_activations_input(pass->activations, linear) + (row + tile->row) * in;
    const float *w = pass->weights->linear[linear] + tile->column * in;
    float *c = y + tile->row * out + tile->column;
    const mq_gemm_shape shape = forward_shape(pass->config, linear, tile);
    mq_gemm(c, x, w, &shape, 1.0F);
    const float *bias = pass->weights->bias[linear];
    for (size_t r = 0; bias && r < tile->rows; r++) {
        pass->kernels->add_bias(c + r * out, bias + tile->column, 1, tile->columns);
    }
}

/* Very small products are made by one thread: others would take longer to come. */
static int threads_for(const mq_block_pass *pass, size_t rows, size_t columns, size_t depth) {
    const double multiplications = (double)rows * (double)columns * (double)depth;
    return multiplications < 1e5 ? 1 : (int)mq_context_threads(pass->context);
}

void mq_block_linears(const mq_block_pass *pass, const mq_together *group, const mq_rows *slab) {
    if (pass->bf16) {
        mq_block_linears_bf16(pass, group, slab);
        return;
    }
    const mq_linear *linears = group->linears;
    const size_t count = group->count, outputs = outputs_of(pass->config, group);
    mq_tiles tiles[MQ_LINEAR_COUNT];
    size_t out, in, begins[MQ_LINEAR_COUNT], total = 0;
    for (size_t i = 0; i < count; i++) {
        mq_config_linear_shape(&out, &in, pass->config, linears[i]);
        tiles[i] = mq_block_tiles(slab->count, out, outputs);
        begins[i] = total;
        total += tiles[i].down * tiles[i].across;
    }
    const int threads = threads_for(pass, slab->count, outputs, in);
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t task = 0; task < total; task++) {
        size_t i = count - 1, columns, depth;
        while (task < begins[i]) {
            i--;
        }
        mq_config_linear_shape(&columns, &depth, pass->config, linears[i]);
        const tile_view tile = tile_at(&tiles[i], task - begins[i], slab->count, columns);
        forward_tile(mq_block_output(pass, linears[i], slab), pass, linears[i], slab->first, &tile);
    }
    mq_gemm_leave_single(pass->context);
}

/* A tile of dx[rows, in], += with accumulate. */
static void backward_tile(float *dx, const mq_block_pass *pass, mq_linear linear, size_t row,
                          const tile_view *tile, bool accumulate) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const float *dy = pass->d_linear[linear] + (row + tile->row) * out;
    const mq_gemm_shape shape = backward_shape(pass->config, linear, tile, accumulate);
    mq_gemm(dx + tile->row * in + tile->column, dy, pass->weights->linear[linear] + tile->column,
            &shape, 1.0F);
}

void mq_block_linears_backward(const mq_block_pass *pass, const mq_together *group,
                               const mq_rows *slab) {
    if (pass->bf16) {
        mq_block_linears_backward_bf16(pass, group, slab);
        return;
    }
    const mq_linear *linears = group->linears;
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linears[0]);
    const size_t count = group->count, outputs = outputs_of(pass->config, group);
    float *dx = mq_block_input_gradient(pass, linears[0], slab);
    const mq_tiles tiles = mq_block_tiles(slab->count, in, in);
    const int threads = threads_for(pass, slab->count, outputs, in);
    mq_gemm_enter_single();
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t task = 0; task < tiles.down * tiles.across; task++) {
        const tile_view tile = tile_at(&tiles, task, slab->count, in);
        for (size_t i = 0; i < count; i++) {
            backward_tile(dx, pass, linears[i], slab->first, &tile, i > 0);
        }
    }
    mq_gemm_leave_single(pass->context);
}

void mq_block_weight_gradient(const mq_block_pass *pass, mq_linear linear, size_t piece) {
    if (pass->bf16) {
        mq_block_weight_gradient_bf16(pass, linear, piece);
        return;
    }
    const piece_view view = piece_of(pass->config, linear, piece, mq_block_tokens(pass));
    mq_gemm(pass->grads->linear[linear] + view.row * view.shape.ldc + view.column,
            pass->d_linear[linear] + view.row,
            mq_activations_input(pass->activations, linear) + view.column, &view.shape, 1.0F);
}
