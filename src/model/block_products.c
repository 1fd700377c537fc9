/* The matrix products of a block's linear layers, of float32 or of bfloat16 operands: forward and
 * input gradient for a slab of tokens in tiles, or for a run of them whole and from packed weights,
 * weight gradient over all tokens in pieces. */
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
    /* 4 MiB. The second-level cache of the processors with AMX has 2; SmolLM2-135M's 1.8 and Gemma
     * 3 270M's 2.3 gain (tests/bench/RESULTS.md, "Speed"), larger ones have not been measured. */
    return mq_block_slab_floats(config, MQ_RUN_ROWS) <= (size_t)1 << 20;
}

size_t mq_block_slab_floats(const mq_config *config, size_t tokens) {
    return tokens * (config->hidden_size + 2 * config->intermediate_size);
}

void mq_block_place_slab(mq_block_pass *pass, float *scratch, size_t tokens) {
    const size_t ffn = tokens * pass->config->intermediate_size;
    pass->slab_hidden = scratch;
    pass->slab_ffn[0] = scratch + tokens * pass->config->hidden_size;
    pass->slab_ffn[1] = pass->slab_ffn[0] + ffn;
}

size_t mq_block_tile_rows(size_t tokens) { return tokens < TILE_ROWS ? tokens : TILE_ROWS; }

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

/* Whether a run's products read packed weights: the last run of some numbers of tokens is shorter,
 * and other shapes may have other layouts. */
static bool is_packed(const mq_config *config, size_t rows) {
    return mq_block_in_runs(config) && rows == MQ_RUN_ROWS;
}

/* in_run: the tile is all of a run's product. */
static mq_gemm_shape forward_shape(const mq_config *config, mq_linear linear, const tile_view *tile,
                                   bool in_run) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_gemm_shape){.packed_b = in_run && is_packed(config, tile->rows),
                           .m = tile->rows,
                           .n = tile->columns,
                           .k = in,
                           .lda = in,
                           .ldb = in,
                           .ldc = out,
                           .trans_b = true};
}

static mq_gemm_shape backward_shape(const mq_config *config, mq_linear linear,
                                    const tile_view *tile, bool accumulate, bool in_run) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return (mq_gemm_shape){.packed_b = in_run && is_packed(config, tile->rows),
                           .m = tile->rows,
                           .n = tile->columns,
                           .k = out,
                           .lda = out,
                           .ldb = in,
                           .ldc = in,
                           .accumulate = accumulate};
}

/* Pieces of weight gradients are at most so many rows or columns, along the longer side. Of less
 * than that their products are slower, and of more there would be too few pieces for the threads.
 * In runs they are rows, of the gradient turned: all operands are dense then. */
#define PIECE 512
#define TURNED_PIECE 256

static size_t piece_count(const mq_config *config, mq_linear linear, bool turned) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    return turned ? (out + TURNED_PIECE - 1) / TURNED_PIECE
                  : ((out > in ? out : in) + PIECE - 1) / PIECE;
}

size_t mq_block_pieces(const mq_block_pass *pass, mq_linear linear) {
    return piece_count(pass->config, linear, mq_block_pass_in_runs(pass));
}

/* dw[rows, columns] of a piece begins at its `row` and `column`. */
typedef struct piece_view {
    size_t row, column;
    mq_gemm_shape shape;
} piece_view;

static piece_view piece_of(const mq_config *config, mq_linear linear, size_t piece, size_t tokens,
                           bool turned) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    const bool by_rows = turned || out > in;
    const size_t side = by_rows ? out : in, pieces = piece_count(config, linear, turned);
    const size_t begin = side * piece / pieces, count = side * (piece + 1) / pieces - begin;
    piece_view view = {.row = by_rows ? begin : 0, .column = by_rows ? 0 : begin};
    view.shape = (mq_gemm_shape){.m = by_rows ? count : out,
                                 .n = by_rows ? in : count,
                                 .k = tokens,
                                 .lda = turned ? tokens : out,
                                 .ldb = in,
                                 .ldc = in,
                                 .trans_a = !turned};
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

/* Of products that together have so many columns. In runs one tile is all. */
static mq_tiles tiles_of(const mq_config *config, size_t rows, size_t columns, size_t together) {
    const mq_tiles all = {.rows = rows, .columns = columns, .down = 1, .across = 1};
    return mq_block_in_runs(config) ? all : mq_block_tiles(rows, columns, together);
}

/* The shapes of all tiles of one linear's products. */
static mq_status prepare_linear(mq_gemm_bf16 *gemm, const mq_config *config, mq_linear linear,
                                size_t outputs, bool first, size_t rows, bool backward,
                                mq_error *err) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    const mq_tiles of_y = tiles_of(config, rows, out, outputs),
                   of_dx = tiles_of(config, rows, in, in);
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < of_y.down * of_y.across; i++) {
        const tile_view tile = tile_at(&of_y, i, rows, out);
        const mq_gemm_shape shape = forward_shape(config, linear, &tile, true);
        status = mq_gemm_bf16_prepare(gemm, &shape, err);
    }
    for (size_t i = 0; backward && status == MQ_OK && i < of_dx.down * of_dx.across; i++) {
        const tile_view tile = tile_at(&of_dx, i, rows, in);
        const mq_gemm_shape shape = backward_shape(config, linear, &tile, !first, true);
        status = mq_gemm_bf16_prepare(gemm, &shape, err);
    }
    return status;
}

static mq_status prepare_slab(mq_gemm_bf16 *gemm, const mq_config *config, size_t rows,
                              bool backward, mq_error *err) {
    const mq_together *const all[] = {&mq_block_qkv, &mq_block_o, &mq_block_gate_up,
                                      &mq_block_down};
    mq_status status = MQ_OK;
    for (size_t g = 0; g < sizeof all / sizeof *all; g++) {
        const size_t outputs = outputs_of(config, all[g]);
        for (size_t i = 0; status == MQ_OK && i < all[g]->count; i++) {
            status = prepare_linear(gemm, config, all[g]->linears[i], outputs, i == 0, rows,
                                    backward, err);
        }
    }
    return status;
}

/* Attention's of layers that see everything and of those with windows. */
static mq_status prepare_attention(mq_gemm_bf16 *gemm, const mq_config *config, size_t length,
                                   bool backward, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t layer = 0; status == MQ_OK && layer < config->num_hidden_layers; layer++) {
        const mq_block_shape block = {
            .config = config, .sequences = 1, .length = length, .layer = layer};
        const mq_attention_shape shape = mq_block_attention_shape(config, &block);
        status = mq_attention_prepare(gemm, &shape, backward, err);
    }
    return status;
}

mq_status mq_block_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t sequences,
                           size_t length, bool backward, mq_error *err) {
    const size_t tokens = sequences * length;
    const bool turned = mq_block_in_runs(config);
    const size_t most = turned ? MQ_RUN_ROWS : tokens;
    const size_t slab = mq_block_slab(config, tokens < most ? tokens : most), rest = tokens % slab;
    mq_status status = prepare_attention(gemm, config, length, backward, err);
    if (status == MQ_OK) {
        status = prepare_slab(gemm, config, slab, backward, err);
    }
    if (status == MQ_OK && rest > 0) {
        status = prepare_slab(gemm, config, rest, backward, err);
    }
    for (mq_linear linear = 0; backward && linear < MQ_LINEAR_COUNT; linear++) {
        for (size_t i = 0; status == MQ_OK && i < piece_count(config, linear, turned); i++) {
            const piece_view view = piece_of(config, linear, i, tokens, turned);
            status = mq_gemm_bf16_prepare(gemm, &view.shape, err);
        }
    }
    return status;
}

/* --- packed weights --------------------------------------------------------------------------- */

/* The product of a whole run, forward or backward. */
static mq_gemm_shape run_shape(const mq_config *config, mq_linear linear, bool backward) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, config, linear);
    const tile_view all = {.rows = MQ_RUN_ROWS, .columns = backward ? in : out};
    const bool adds =
        linear == MQ_K || linear == MQ_V || linear == MQ_UP; /* not its group's first */
    return backward ? backward_shape(config, linear, &all, adds, true)
                    : forward_shape(config, linear, &all, true);
}

size_t mq_block_packed_size(const mq_gemm_bf16 *gemm, const mq_config *config, mq_linear linear,
                            bool backward) {
    size_t most = 0;
    for (int which = 0; which <= (backward ? 1 : 0); which++) {
        const mq_gemm_shape shape = run_shape(config, linear, which == 1);
        const size_t size = mq_gemm_bf16_packed_size(gemm, &shape);
        most = size > most ? size : most;
    }
    return most;
}

void mq_block_pack_weights(const mq_block_pass *pass) {
    static const mq_linear largest_first[MQ_LINEAR_COUNT] = {MQ_DOWN, MQ_GATE, MQ_UP, MQ_Q,
                                                             MQ_O,    MQ_K,    MQ_V};
    const bool backward = pass->grads != NULL;
    if (!mq_block_pass_in_runs(pass) || mq_block_tokens(pass) < MQ_RUN_ROWS) {
        return;
    }
    const mq_products *bf16 = pass->bf16;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)mq_context_threads(pass->context))
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const mq_linear linear = largest_first[i];
        const mq_gemm_shape shape = run_shape(pass->config, linear, backward);
        if (!backward || mq_block_passes_on(pass, linear)) {
            mq_gemm_bf16_pack(pass->activations->packed[linear], pass->weights->linear_bf16[linear],
                              &shape, bf16->gemm,
                              bf16->scratch + (size_t)omp_get_thread_num() * bf16->scratch_size);
        }
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* A linear's input [tokens, in], weight [out, in] and gradient by its output [tokens, out]. */
static mq_operand input_of(const mq_block_pass *pass, mq_linear linear) {
    const mq_activations *a = pass->activations;
    return (mq_operand){mq_activations_input(a, linear), a->input_bf16[linear]};
}

static mq_operand weight_of(const mq_block_pass *pass, mq_linear linear) {
    return (mq_operand){pass->weights->linear[linear], pass->weights->linear_bf16[linear]};
}

static mq_operand packed_of(const mq_block_pass *pass, mq_linear linear) {
    return (mq_operand){.bf16 = pass->activations->packed[linear]};
}

static mq_operand gradient_of(const mq_block_pass *pass, mq_linear linear) {
    return (mq_operand){pass->d_linear[linear], pass->activations->d_bf16[linear]};
}

/* A tile of y[rows, out]; row: the slab's first token. */
static void forward_tile(float *y, const mq_block_pass *pass, mq_linear linear, size_t row,
                         const tile_view *tile) {
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linear);
    const mq_operand x = mq_operand_at(input_of(pass, linear), (row + tile->row) * in);
    float *c = y + tile->row * out + tile->column;
    const mq_gemm_shape shape = forward_shape(pass->config, linear, tile, pass->alone);
    const mq_operand w = shape.packed_b ? packed_of(pass, linear)
                                        : mq_operand_at(weight_of(pass, linear), tile->column * in);
    mq_product(c, x, w, &shape, pass->bf16);
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

static void linears_alone(const mq_block_pass *pass, const mq_together *group, const mq_rows *run) {
    for (size_t i = 0; i < group->count; i++) {
        const mq_linear linear = group->linears[i];
        size_t out, in;
        mq_config_linear_shape(&out, &in, pass->config, linear);
        const tile_view all = {.rows = run->count, .columns = out};
        forward_tile(mq_block_output(pass, linear, run), pass, linear, run->first, &all);
    }
}

void mq_block_linears(const mq_block_pass *pass, const mq_together *group, const mq_rows *slab) {
    if (pass->alone) {
        linears_alone(pass, group, slab);
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
    const mq_operand dy = mq_operand_at(gradient_of(pass, linear), (row + tile->row) * out);
    const mq_gemm_shape shape = backward_shape(pass->config, linear, tile, accumulate, pass->alone);
    const mq_operand w = shape.packed_b ? packed_of(pass, linear)
                                        : mq_operand_at(weight_of(pass, linear), tile->column);
    mq_product(dx + tile->row * in + tile->column, dy, w, &shape, pass->bf16);
}

void mq_block_linears_backward(const mq_block_pass *pass, const mq_together *group,
                               const mq_rows *slab) {
    const mq_linear *linears = group->linears;
    size_t out, in;
    mq_config_linear_shape(&out, &in, pass->config, linears[0]);
    const size_t count = group->count, outputs = outputs_of(pass->config, group);
    float *dx = mq_block_input_gradient(pass, linears[0], slab);
    if (pass->alone) {
        const tile_view all = {.rows = slab->count, .columns = in};
        for (size_t i = 0; i < count; i++) {
            backward_tile(dx, pass, linears[i], slab->first, &all, i > 0);
        }
        return;
    }
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
    const size_t tokens = mq_block_tokens(pass);
    const bool turned = mq_block_pass_in_runs(pass);
    const piece_view view = piece_of(pass->config, linear, piece, tokens, turned);
    const bool taken = turned && pass->grads->take;
    float *dw = taken ? pass->activations->scratch +
                            (size_t)omp_get_thread_num() * pass->activations->piece_floats
                      : pass->grads->linear[linear] + view.row * view.shape.ldc + view.column;
    const mq_operand d = turned ? (mq_operand){.bf16 = pass->activations->d_turned[linear]}
                                : gradient_of(pass, linear);
    mq_product(dw, mq_operand_at(d, turned ? view.row * tokens : view.row),
               mq_operand_at(input_of(pass, linear), view.column), &view.shape, pass->bf16);
    if (taken) {
        pass->grads->take(pass->grads->user, linear, view.row, view.shape.m, dw);
    }
}

size_t mq_block_piece_floats(const mq_config *config) {
    size_t most = 0;
    for (mq_linear linear = 0; linear < MQ_LINEAR_COUNT; linear++) {
        for (size_t piece = 0; piece < piece_count(config, linear, true); piece++) {
            const piece_view view = piece_of(config, linear, piece, 0, true);
            most = mq_larger(most, view.shape.m * view.shape.n);
        }
    }
    return most;
}
