/* The inner loops of a search, compiled.
 *
 * NumPy goes over the codes of a search a dozen times, and copies features together before it
 * compares them. Here each is gone over once, where it lies. store/kernels.py has the same in
 * NumPy, for machines that have no compiler, and says what the arrays are.
 *
 * Arrays come as buffers. Sizes are checked against each other, and places against the array that
 * they are in: whatever a damaged store says, nothing outside is touched.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "sift takes words apart");

/* Raised with every change of what store/kernels.py sees, which takes no other version's loops. */
#define VERSION 1

#define INLINE static inline __attribute__((always_inline))
#define WORD_BITS 64
#define DISTANCE_BITS 16
/* Distance of what does not count. All others are below it. */
#define FAR 0x7FFF
#define MOST_BITS 4095
#define LINE_BYTES 64
/* Features are asked for so many bytes before they are multiplied, a block of them at a time. */
#define AHEAD_BYTES 12288
#define BLOCK_BYTES 256
/* The products of so many pairs of bytes fit into 32 bits. */
#define MOST_DIMS (INT32_MAX / (127 * 127))

/* Each loop is compiled for processors that count the bits of eight words at once, for those with
 * half as wide registers, and for all others; which one runs is decided when the module is loaded. */
#if defined(__x86_64__)
#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,popcnt")))
#define NARROW __attribute__((target("avx2,popcnt")))

static int best_variant(void) {
    if (__builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") ? 1 : 0;
}
#else
#define WIDE
#define NARROW

static int best_variant(void) { return 0; }
#endif

#define VARIANTS(name, parameters, arguments)                       \
    WIDE static void name##_wide parameters { name arguments; }     \
    NARROW static void name##_narrow parameters { name arguments; } \
    static void name##_plain parameters { name arguments; }         \
    static void(*const name##_variants[]) parameters = {name##_plain, name##_narrow, name##_wide};

static int variant;

/* Count the bits in which codes, one array for each of their words, differ from a code. */
INLINE void differing(const uint64_t *restrict words, int64_t stride, int64_t count,
                      const uint64_t *code, int64_t width, uint16_t *restrict distances) {
    for (int64_t i = 0; i < count; i++)
        distances[i] = (uint16_t)__builtin_popcountll(words[i] ^ code[0]);
    for (int64_t w = 1; w < width; w++)
        for (int64_t i = 0; i < count; i++)
            distances[i] += (uint16_t)__builtin_popcountll(words[w * stride + i] ^ code[w]);
}

VARIANTS(differing,
         (const uint64_t *words, int64_t stride, int64_t count, const uint64_t *code, int64_t width,
          uint16_t *distances),
         (words, stride, count, code, width, distances))

/* Find the nearest of many codes; of equally near ones the first. */
INLINE int64_t first_nearest(const uint16_t *restrict distances, int64_t count) {
    uint16_t least = UINT16_MAX;
    for (int64_t i = 0; i < count; i++) least = distances[i] < least ? distances[i] : least;
    int64_t place = 0;
    while (distances[place] != least) place++;
    return place;
}

/* Find the nearest centre of each code, and how far it is. */
INLINE void file_codes(const uint64_t *codes, int64_t count, const uint64_t *centres, int64_t stride,
                       int64_t width, uint32_t *keys, uint16_t *distances, uint16_t *scratch) {
    for (int64_t i = 0; i < count; i++) {
        differing(centres, stride, stride, codes + i * width, width, scratch);
        keys[i] = (uint32_t)first_nearest(scratch, stride);
        distances[i] = scratch[keys[i]];
    }
}

VARIANTS(file_codes,
         (const uint64_t *codes, int64_t count, const uint64_t *centres, int64_t stride,
          int64_t width, uint32_t *keys, uint16_t *distances, uint16_t *scratch),
         (codes, count, centres, stride, width, keys, distances, scratch))

/* Count how often each distance occurs. Four counts side by side need not wait for each other. */
static void tally(const uint16_t *distances, const uint8_t *dead, int64_t count, int64_t *counts,
                  int64_t kinds) {
    int64_t i = 0;
    if (dead) {
        for (; i < count; i++) counts[distances[i]] += !dead[i];
        return;
    }
    for (; i + 4 <= count; i += 4)
        for (int64_t lane = 0; lane < 4; lane++) counts[lane * kinds + distances[i + lane]]++;
    for (; i < count; i++) counts[distances[i]]++;
}

/* Multiply features, wherever they lie, with one or two queries. */
INLINE void multiply(const int8_t *values, int64_t dims, const int64_t *slots, int64_t count,
                     const int16_t *coarse, const int16_t *fine, int32_t *products) {
    const int64_t ahead = 1 + AHEAD_BYTES / dims;
    for (int64_t i = 0; i < count; i++) {
        const int8_t *restrict feature = values + slots[i] * dims;
        const int8_t *later = values + slots[i + ahead < count ? i + ahead : count - 1] * dims;
        int32_t of_coarse = 0, of_fine = 0;
        for (int64_t from = 0; from < dims; from += BLOCK_BYTES) {
            const int64_t to = dims - from < BLOCK_BYTES ? dims : from + BLOCK_BYTES;
            for (int64_t at = from; at < to; at += LINE_BYTES) __builtin_prefetch(later + at);
            for (int64_t at = from; at < to; at++) of_coarse += (int16_t)feature[at] * coarse[at];
            if (!fine) continue;
            for (int64_t at = from; at < to; at++) of_fine += (int16_t)feature[at] * fine[at];
        }
        if (fine) {
            products[2 * i] = of_coarse;
            products[2 * i + 1] = of_fine;
        } else {
            products[i] = of_coarse;
        }
    }
}

VARIANTS(multiply,
         (const int8_t *values, int64_t dims, const int64_t *slots, int64_t count,
          const int16_t *coarse, const int16_t *fine, int32_t *products),
         (values, dims, slots, count, coarse, fine, products))

static void release(Py_buffer *buffers, int count) {
    for (int i = 0; i < count; i++) PyBuffer_Release(&buffers[i]);
}

static PyObject *finished(Py_buffer *buffers, int count, bool fits, PyObject *result) {
    release(buffers, count);
    if (fits) return result;
    PyErr_SetString(PyExc_ValueError, "the arrays do not fit each other");
    return NULL;
}

/* Mark the nearest buckets that hold enough; returns the smallest bound of the others. */
static int64_t choose_nearest(const uint16_t *distances, const int64_t *counts, const int16_t *bounds,
                              int64_t buckets, int64_t wanted, const int64_t *of_ring, bool *chosen) {
    int64_t ring = 0, missing = wanted, bound = FAR;
    while (ring < MOST_BITS && of_ring[ring] < missing) missing -= of_ring[ring++];
    for (int64_t i = 0; i < buckets; i++) {
        const bool on_ring = distances[i] == ring;
        chosen[i] = distances[i] < ring || (on_ring && missing > 0);
        if (on_ring) missing -= counts[i];
        if (!chosen[i] && bounds[i] < bound) bound = bounds[i];
    }
    return bound;
}

static PyObject *choose(PyObject *module, PyObject *args) {
    enum { DISTANCES, COUNTS, BOUNDS, CHOSEN, BUFFERS };
    Py_buffer b[BUFFERS];
    long long wanted, bound = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*Lw*", &b[DISTANCES], &b[COUNTS], &b[BOUNDS], &wanted,
                          &b[CHOSEN]))
        return NULL;
    const int64_t buckets = b[CHOSEN].len;
    const uint16_t *distances = b[DISTANCES].buf;
    const int64_t *counts = b[COUNTS].buf;
    int64_t of_ring[MOST_BITS + 1] = {0};
    bool fits = b[DISTANCES].len == buckets * (int64_t)sizeof(uint16_t) &&
                b[COUNTS].len == buckets * (int64_t)sizeof(int64_t) &&
                b[BOUNDS].len == buckets * (int64_t)sizeof(int16_t);
    for (int64_t i = 0; fits && i < buckets; i++) {
        fits = distances[i] <= MOST_BITS;
        if (fits) of_ring[distances[i]] += counts[i];
    }
    if (fits)
        bound = choose_nearest(distances, counts, b[BOUNDS].buf, buckets, wanted, of_ring, b[CHOSEN].buf);
    return finished(b, BUFFERS, fits, fits ? PyLong_FromLongLong(bound) : NULL);
}

/* Pieces of an array: [start, end) each. Returns their total length, or -1 if one is outside. */
static int64_t pieces_length(const Py_buffer *starts, const Py_buffer *ends, int64_t most) {
    const int64_t *start = starts->buf, *end = ends->buf;
    int64_t total = 0;
    if (starts->len != ends->len) return -1;
    for (int64_t i = 0; i < starts->len / (int64_t)sizeof(int64_t); i++) {
        if (start[i] < 0 || end[i] < start[i] || end[i] > most) return -1;
        total += end[i] - start[i];
    }
    return total;
}

static PyObject *count(PyObject *module, PyObject *args) {
    enum { WORDS, STARTS, ENDS, CODE, DEAD, DISTANCES, COUNTS, BUFFERS };
    Py_buffer b[BUFFERS];
    if (!PyArg_ParseTuple(args, "y*y*y*y*z*w*w*", &b[WORDS], &b[STARTS], &b[ENDS], &b[CODE],
                          &b[DEAD], &b[DISTANCES], &b[COUNTS]))
        return NULL;
    const int64_t width = b[CODE].len / (int64_t)sizeof(uint64_t);
    const int64_t stride = width ? b[WORDS].len / (int64_t)sizeof(uint64_t) / width : 0;
    const int64_t total = pieces_length(&b[STARTS], &b[ENDS], stride);
    const int64_t kinds = width * WORD_BITS + 1;
    bool fits = width > 0 && total >= 0 && kinds <= FAR &&
                b[DISTANCES].len >= total * (int64_t)sizeof(uint16_t) &&
                b[COUNTS].len == 4 * kinds * (int64_t)sizeof(int64_t) &&
                (!b[DEAD].buf || b[DEAD].len == stride);
    if (fits) {
        const int64_t *start = b[STARTS].buf, *end = b[ENDS].buf;
        uint16_t *distances = b[DISTANCES].buf;
        Py_BEGIN_ALLOW_THREADS;
        for (int64_t i = 0; i < b[STARTS].len / (int64_t)sizeof(int64_t); i++) {
            const int64_t length = end[i] - start[i];
            const uint8_t *dead = b[DEAD].buf ? (const uint8_t *)b[DEAD].buf + start[i] : NULL;
            differing_variants[variant]((const uint64_t *)b[WORDS].buf + start[i], stride, length,
                                        b[CODE].buf, width, distances);
            tally(distances, dead, length, b[COUNTS].buf, kinds);
            for (int64_t j = 0; dead && j < length; j++)
                if (dead[j]) distances[j] = FAR;
            distances += length;
        }
        Py_END_ALLOW_THREADS;
    }
    return finished(b, BUFFERS, fits, fits ? PyLong_FromLongLong(total) : NULL);
}

/* Words that are filled one by one. */
struct words {
    uint64_t *at;
    int64_t count, room;
};

INLINE void append(struct words *words, uint64_t row, uint64_t distance) {
    if (words->count < words->room) words->at[words->count++] = row << DISTANCE_BITS | distance;
}

INLINE uint64_t row_at(const void *rows, bool are_long, int64_t place) {
    return are_long ? ((const uint64_t *)rows)[place] : ((const uint32_t *)rows)[place];
}

/* Take what is nearer than a line, and what is on it: row and distance packed into a word.
 *
 * Few are. Four distances are looked at in one step: added to what is missing from the line to
 * the highest bit, they reach that bit if they are beyond the line. */
INLINE void sift(const void *rows, bool are_long, const uint16_t *distances, int64_t length,
                 uint64_t line, struct words *nearer, struct words *level) {
    const uint64_t missing = (FAR - line) * 0x0001000100010001u, highest = 0x8000800080008000u;
    int64_t i = 0;
    for (; i + 4 <= length; i += 4) {
        uint64_t four;
        memcpy(&four, distances + i, sizeof four);
        for (uint64_t hits = ~(four + missing) & highest; hits; hits &= hits - 1) {
            int64_t place = i + __builtin_ctzll(hits) / DISTANCE_BITS;
            append(distances[place] < line ? nearer : level, row_at(rows, are_long, place),
                   distances[place]);
        }
    }
    for (; i < length; i++)
        if (distances[i] <= line)
            append(distances[i] < line ? nearer : level, row_at(rows, are_long, i), distances[i]);
}

static struct words words_of(const Py_buffer *buffer) {
    struct words found = {buffer->buf, 0, buffer->len / (int64_t)sizeof(uint64_t)};
    return found;
}

static PyObject *file(PyObject *module, PyObject *args) {
    enum { CODES, CENTRES, KEYS, DISTANCES, BUFFERS };
    Py_buffer b[BUFFERS];
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "y*y*nw*w*", &b[CODES], &b[CENTRES], &width, &b[KEYS],
                          &b[DISTANCES]))
        return NULL;
    const int64_t word = sizeof(uint64_t), count = b[KEYS].len / (int64_t)sizeof(uint32_t);
    const int64_t stride = width > 0 ? b[CENTRES].len / word / width : 0;
    uint16_t *scratch = stride > 0 ? malloc((size_t)stride * sizeof(uint16_t)) : NULL;
    const bool fits = scratch && width * WORD_BITS < FAR && b[CODES].len == count * width * word &&
                      b[DISTANCES].len == count * (int64_t)sizeof(uint16_t);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS;
        file_codes_variants[variant](b[CODES].buf, count, b[CENTRES].buf, stride, width,
                                     b[KEYS].buf, b[DISTANCES].buf, scratch);
        Py_END_ALLOW_THREADS;
    }
    free(scratch);
    return finished(b, BUFFERS, fits, fits ? Py_NewRef(Py_None) : NULL);
}

static PyObject *pick(PyObject *module, PyObject *args) {
    enum { ROWS, STARTS, ENDS, DISTANCES, NEARER, LEVEL, BUFFERS };
    Py_buffer b[BUFFERS];
    int row_bytes, line;
    if (!PyArg_ParseTuple(args, "y*iy*y*y*iw*w*", &b[ROWS], &row_bytes, &b[STARTS], &b[ENDS],
                          &b[DISTANCES], &line, &b[NEARER], &b[LEVEL]))
        return NULL;
    const bool known = row_bytes == 4 || row_bytes == 8;
    const int64_t total = known ? pieces_length(&b[STARTS], &b[ENDS], b[ROWS].len / row_bytes) : -1;
    struct words nearer = words_of(&b[NEARER]), level = words_of(&b[LEVEL]);
    const bool fits = total >= 0 && line >= 0 && line < FAR && b[DISTANCES].len >= total * (int64_t)sizeof(uint16_t);
    if (fits) {
        const int64_t *start = b[STARTS].buf, *end = b[ENDS].buf;
        const uint16_t *distances = b[DISTANCES].buf;
        Py_BEGIN_ALLOW_THREADS;
        for (int64_t i = 0; i < b[STARTS].len / (int64_t)sizeof(int64_t); i++) {
            const char *rows = (const char *)b[ROWS].buf + start[i] * row_bytes;
            sift(rows, row_bytes == 8, distances, end[i] - start[i], (uint64_t)line, &nearer, &level);
            distances += end[i] - start[i];
        }
        Py_END_ALLOW_THREADS;
    }
    return finished(b, BUFFERS, fits,
                    fits ? Py_BuildValue("LL", (long long)nearer.count, (long long)level.count) : NULL);
}

static PyObject *products(PyObject *module, PyObject *args) {
    enum { VALUES, SLOTS, COARSE, FINE, PRODUCTS, BUFFERS };
    Py_buffer b[BUFFERS];
    if (!PyArg_ParseTuple(args, "y*y*y*z*w*", &b[VALUES], &b[SLOTS], &b[COARSE], &b[FINE],
                          &b[PRODUCTS]))
        return NULL;
    const int64_t dims = b[COARSE].len / (int64_t)sizeof(int16_t);
    const int64_t *slots = b[SLOTS].buf, count = b[SLOTS].len / (int64_t)sizeof(int64_t);
    bool fits = dims > 0 && dims <= MOST_DIMS && (!b[FINE].buf || b[FINE].len == b[COARSE].len) &&
                b[PRODUCTS].len == (b[FINE].buf ? 2 : 1) * count * (int64_t)sizeof(int32_t);
    for (int64_t i = 0; fits && i < count; i++)
        fits = slots[i] >= 0 && slots[i] < b[VALUES].len / dims;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS;
        multiply_variants[variant](b[VALUES].buf, dims, slots, count, b[COARSE].buf, b[FINE].buf,
                                   b[PRODUCTS].buf);
        Py_END_ALLOW_THREADS;
    }
    return finished(b, BUFFERS, fits, fits ? Py_NewRef(Py_None) : NULL);
}

static PyMethodDef methods[] = {
    {"choose", choose, METH_VARARGS, "Choose the nearest buckets that hold enough."},
    {"file", file, METH_VARARGS, "Find the nearest centre of each code."},
    {"count", count, METH_VARARGS, "Count differing bits, and how often each count occurs."},
    {"pick", pick, METH_VARARGS, "Pick what is nearer than a line, and what is on it."},
    {"products", products, METH_VARARGS, "Multiply features with a query."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_doc = "The inner loops of a search.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernels(void) {
    PyObject *module = PyModule_Create(&definition);
    variant = best_variant();
    if (module && PyModule_AddIntConstant(module, "VERSION", VERSION) < 0) Py_CLEAR(module);
    return module;
}
