/* layer: model */
/* Attention in tiles against the plain reference, and the reference's gradients against central
 * differences of losses in double.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/kernels.h"
#include "random_arrays.h"
#include "reference_attention.h"

typedef struct attention_case {
    float *q, *dq, *dq2, *out, *out2, *dout; /* [tokens, heads, head_dim] */
    float *k, *v, *dk, *dv, *dk2, *dv2;      /* [tokens, kv_heads, head_dim] */
    float *lse, *lse2, *scratch;
} attention_case;

static attention_case new_attention_case(const mq_attention_shape *shape,
                                         const mq_context *context) {
    const size_t rows = shape->sequences * shape->length;
    const size_t q = rows * shape->heads * shape->head_dim,
                 kv = rows * shape->kv_heads * shape->head_dim;
    return (attention_case){.q = random_floats(q, 2.0),
                            .dq = random_floats(q, 1.0),
                            .dq2 = random_floats(q, 1.0),
                            .out = random_floats(q, 1.0),
                            .out2 = random_floats(q, 1.0),
                            .dout = random_floats(q, 1.0),
                            .k = random_floats(kv, 2.0),
                            .v = random_floats(kv, 2.0),
                            .dk = random_floats(kv, 1.0),
                            .dv = random_floats(kv, 1.0),
                            .dk2 = random_floats(kv, 1.0),
                            .dv2 = random_floats(kv, 1.0),
                            .lse = new_floats(rows * shape->heads),
                            .lse2 = new_floats(rows * shape->heads),
                            .scratch = new_floats(mq_attention_scratch(shape, true, context))};
}

static mq_attention_inputs inputs_of(const attention_case *c) {
    return (mq_attention_inputs){.q = c->q, .k.f32 = c->k, .v.f32 = c->v};
}

static void check_attention(const mq_attention_shape *shape, const mq_context *context) {
    const size_t rows = shape->sequences * shape->length;
    const size_t q = rows * shape->heads * shape->head_dim,
                 kv = rows * shape->kv_heads * shape->head_dim;
    attention_case c = new_attention_case(shape, context);
    const mq_attention_inputs in = inputs_of(&c);
    const mq_attention_kept kept = {c.out, c.lse, c.dout};
    const mq_attention_grads grads = {c.dq, c.dk, c.dv}, expected = {c.dq2, c.dk2, c.dv2};
    const mq_attention_run run = {.shape = shape, .scratch = c.scratch, .context = context};
    mq_attention_forward(c.out, c.lse, &in, &run);
    attention_forward_reference(c.out2, c.lse2, &in, shape);
    check_close("out", c.out, c.out2, q, 2e-6);
    check_close("lse", c.lse, c.lse2, rows * shape->heads, 2e-6);
    mq_attention_backward(&grads, &kept, &in, &run);
    attention_backward_reference(&expected, c.dout, &in, shape);
    /* A query that sees one key has the gradient 0, as the difference of two sums of order 10. */
    check_within("dq", c.dq, c.dq2, q, 5e-6, 1.0);
    check_within("dk", c.dk, c.dk2, kv, 5e-6, 1.0);
    check_close("dv", c.dv, c.dv2, kv, 5e-6);
    free_all((float **)&c, sizeof c / sizeof(float *));
}

static void test_attention(void **state) {
    (void)state;
    const mq_context_options options = {.threads = 3};
    mq_context *context;
    assert_int_equal(mq_context_new(&context, &options, NULL), MQ_OK);
    static const size_t lengths[] = {129, 7, 64, 300, 1, 128};
    static const size_t windows[] = {0, 1, 5, 128, 140, 1000};
    /* Tiles have fewer tokens the more heads share keys and values. */
    static const size_t groups[] = {1, 2, 3, 4, 13};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t j = 0; j < sizeof windows / sizeof *windows; j++) {
            /* Backward the tiles of a head are so many tasks that there are twelve: 1 to 12. */
            const size_t kv_heads = 1 + j % 4;
            const mq_attention_shape shape = {.sequences = 1 + i % 3,
                                              .length = lengths[i],
                                              .heads = kv_heads * groups[(i + j) % 5],
                                              .kv_heads = kv_heads,
                                              .head_dim = 6,
                                              .window = windows[j],
                                              .scale = 0.7F,
                                              .softcap = j % 2 ? 3.0F : 0.0F};
            check_attention(&shape, context);
        }
    }
    mq_context_free(context);
}

typedef struct attention_user {
    const mq_attention_shape *shape;
    double *q, *k, *v;
} attention_user;

static void attention_function(double *out, void *user) {
    const attention_user *u = user;
    double_attention(out, u->q, u->k, u->v, u->shape);
}

static void test_attention_differences(void **state) {
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        const mq_attention_shape shape = {.sequences = 2,
                                          .length = 6,
                                          .heads = 4,
                                          .kv_heads = variant == 3 ? 1 : 2,
                                          .head_dim = 3,
                                          .window = variant & 1 ? 3 : 0,
                                          .scale = 0.6F,
                                          .softcap = variant & 2 ? 1.5F : 0.0F};
        mq_context *context;
        assert_int_equal(mq_context_new(&context, NULL, NULL), MQ_OK);
        attention_case c = new_attention_case(&shape, context);
        const size_t q = (size_t)2 * 6 * 4 * 3, kv = 2 * 6 * shape.kv_heads * 3;
        attention_user user = {&shape, to_doubles(c.q, q), to_doubles(c.k, kv),
                               to_doubles(c.v, kv)};
        double *out = new_doubles(q);
        const mq_attention_inputs in = inputs_of(&c);
        const mq_attention_grads grads = {c.dq, c.dk, c.dv};
        attention_backward_reference(&grads, c.dout, &in, &shape);
        for (size_t i = 0; i < q; i++) {
            c.dq2[i] = (float)difference(attention_function, &user, &user.q[i], c.dout, out, q);
        }
        for (size_t i = 0; i < kv; i++) {
            c.dk2[i] = (float)difference(attention_function, &user, &user.k[i], c.dout, out, q);
            c.dv2[i] = (float)difference(attention_function, &user, &user.v[i], c.dout, out, q);
        }
        check_close("dq", c.dq, c.dq2, q, 2e-6);
        check_close("dk", c.dk, c.dk2, kv, 2e-6);
        check_close("dv", c.dv, c.dv2, kv, 2e-6);
        double *doubles[] = {user.q, user.k, user.v, out};
        for (size_t i = 0; i < 4; i++) {
            free(doubles[i]);
        }
        free_all((float **)&c, sizeof c / sizeof(float *));
        mq_context_free(context);
    }
}

int main(void) {
    mq_random_seed(&generator, 3, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
