// link: log records base
/* fuzz_side_files.c - .index, .timeindex and .txnindex of any bytes: each by itself, compared with a look at all its
 * entries one after the other, and beside a good log, which opens after a clean stop and after a crash in the middle
 * of the segment (resume.c), is then readable from each of its offsets, and finds its times. On a file system in
 * memory. */
#include "libs/log/internal.h"
#include "tests/fuzz/mem_files.h"
#include "tests/fuzz/seeded.h"

enum { OFFSET_INDEX, TIME_INDEX, TXN_INDEX, GOOD_LOG, KINDS }; /* a file by itself, or some beside a good log */
enum { BATCHES = 60, MARK_AT = 40, PRODUCER = 7, TXN_BATCHES = 5, TXN_BYTES = 34, INTERVAL = 100 };

static const struct file_system fs = {&ops, NULL};
static const char *const names[] = {
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    EPOCHS_FILE,
};
enum { LOG, INDEX, TIMES, TXNS, EPOCHS, FILES };

/* The good log: what its files held when it was left, and where its mark is. */
static struct buf good[FILES], snapshot;
static char snapshot_name[32];
static int64_t mark, good_end;

/* ---- making it ---- */

static void append(struct log *l, int i)
{
    struct buf out = {0};
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    bool marker = i % TXN_BATCHES == TXN_BATCHES - 1;
    o.producer_id = PRODUCER;
    o.producer_epoch = 0;
    o.base_sequence = marker ? -1 : i - i / TXN_BATCHES;
    o.attributes = BATCH_ATTR_TRANSACTIONAL | (marker ? BATCH_ATTR_CONTROL : 0);
    batch_begin(&b, &out, &o);
    if (marker)
        batch_add_control(&b, i, CONTROL_ABORT, SLICE_OF("\0\0\0\0\0\0"));
    else
        batch_add(&b, 1000 + i, SLICE_OF("key"), SLICE_OF("a value of some bytes"), NULL, 0);
    ASSERT(batch_end(&b) == 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .origin = LOG_FROM_COORDINATOR, .now_wall_ms = 1};
    ASSERT(log_stage(l, &a) == KERR_NONE && log_commit(l) == 0);
    buf_free(&out);
}

static struct log_options options(void)
{
    struct log_options o = {.fs = &fs, .dir = "t-0", .now_wall_ms = 1};
    log_config_init(&o.config);
    o.config.segment_index_bytes = 4096;
    o.config.index_interval_bytes = INTERVAL;
    return o;
}

static void keep_snapshot(void *arg, const char *name)
{
    size_t n = strlen(name);
    struct mem_file *f;
    char path[NAME_MAX_BYTES];
    if (n < 9 || strcmp(name + n - 9, ".snapshot") != 0)
        return;
    snprintf(path, sizeof path, "t-0/%s", name);
    f = find(path);
    ASSERT(f != NULL && arg == NULL);
    snapshot.size = 0;
    buf_append(&snapshot, f->bytes.data, f->bytes.size);
    snprintf(snapshot_name, sizeof snapshot_name, "%s", name);
}

static void make_good(void)
{
    struct log_options o = options();
    struct log *l;
    ASSERT(log_open(&o, &l) == 0);
    for (int i = 0; i < BATCHES; i++) {
        append(l, i);
        if (i + 1 != MARK_AT)
            continue;
        struct log_flush *f = log_mark_begin(l);
        ASSERT(f != NULL);
        log_flush_run(f);
        ASSERT(log_flush_end(l, f) == 0);
        mark = log_recovery_point(l);
    }
    good_end = log_end(l);
    m_list(NULL, "t-0", keep_snapshot, NULL);
    ASSERT(log_close(l, 1) == 0);
    for (size_t i = 0; i < FILES; i++) {
        char path[NAME_MAX_BYTES];
        snprintf(path, sizeof path, "t-0/%s", names[i]);
        const struct mem_file *f = find(path);
        ASSERT(f != NULL && f->bytes.size > 0);
        buf_append(&good[i], f->bytes.data, f->bytes.size);
    }
    ASSERT(mark == MARK_AT && good_end == BATCHES && snapshot.size > 0);
    drop_files();
}

static void put_side(int kind, struct slice bytes)
{
    put_file(names[kind], bytes);
}

/* ---- an index by itself ---- */

struct entry {
    int64_t key;
    int32_t value;
};

static struct entry entry_at(struct slice bytes, uint32_t size, size_t i)
{
    const uint8_t *e = bytes.data + i * size;
    return size == INDEX_TIME_ENTRY ? (struct entry){get_i64(e), get_i32(e + 8)}
                                    : (struct entry){get_i32(e), get_i32(e + 4)};
}

static void check_sound(struct index *x, struct slice bytes, const struct entry *limit, uint32_t *ret_count)
{
    struct entry last = {0, 0}, found;
    size_t n = bytes.size / x->entry_size, i = 0;
    for (; i < n; i++) {
        struct entry e = entry_at(bytes, x->entry_size, i);
        if (e.key <= last.key || e.key >= limit->key || e.value < last.value || e.value >= limit->value)
            break;
        last = e;
    }
    ASSERT(index_sound(x, limit->key, limit->value, ret_count, &found.key, &found.value) == 0);
    ASSERT(*ret_count == i && found.key == last.key && found.value == last.value);
}

/* Of one whose entries rise a search finds what is there; of any other it ends, with an entry of it. */
static void check_searches(struct index *x, struct slice bytes, struct entry wanted, bool sound)
{
    struct entry floor, ceiling = {0, 0};
    size_t n = bytes.size / x->entry_size, below = 0, less = 0;
    for (size_t i = 0; i < n; i++) {
        below += entry_at(bytes, x->entry_size, i).key <= wanted.key;
        less += entry_at(bytes, x->entry_size, i).value < wanted.value;
    }
    int has_floor = index_floor(x, wanted.key, &floor.key, &floor.value),
        has_ceiling = index_ceiling(x, wanted.value, &ceiling.key, &ceiling.value);
    ASSERT(has_floor >= 0 && has_floor <= 1 && has_ceiling >= 0 && has_ceiling <= 1);
    ASSERT(has_floor == 0 || floor.key <= wanted.key);
    if (sound) {
        ASSERT(has_floor == (below > 0) && has_ceiling == (less < n));
        ASSERT(below == 0 || floor.key == entry_at(bytes, x->entry_size, below - 1).key);
        ASSERT(less == n || (ceiling.key == entry_at(bytes, x->entry_size, less).key && ceiling.value >= wanted.value));
    }
    ASSERT(index_truncate(x, wanted.value) == 0 && index_count(x) <= n);
    ASSERT(!sound || index_count(x) == less);
    struct entry last;
    ASSERT(index_last(x, &last.key, &last.value) == (index_count(x) > 0 ? 0 : -ENOENT));
    ASSERT(index_count(x) == 0 || last.value < wanted.value);
}

static void one_index(int kind, struct slice bytes)
{
    uint32_t count, size = kind == OFFSET_INDEX ? INDEX_OFFSET_ENTRY : INDEX_TIME_ENTRY;
    struct entry wanted, none = {INT64_MAX, INT32_MAX};
    struct index x;
    if (bytes.size < INDEX_TIME_ENTRY)
        return;
    wanted = entry_at(bytes, INDEX_TIME_ENTRY, 0);
    bytes = slice_make(bytes.data + INDEX_TIME_ENTRY, bytes.size - INDEX_TIME_ENTRY);
    put_side(INDEX, bytes);
    index_init(&x, &fs, "t-0/00000000000000000000.index", size, bytes.size);
    check_sound(&x, bytes, &wanted, &count);
    check_sound(&x, bytes, &none, &count);
    check_searches(&x, bytes, wanted, count == bytes.size / size);
    ASSERT(index_add(&x, wanted.key, wanted.value) == 0 && index_write(&x) == 0);
    index_free(&x);
}

static void txn_index(struct slice bytes)
{
    if (bytes.size < 16)
        return;
    int64_t end = get_i64(bytes.data), cut = get_i64(bytes.data + 8);
    bytes = slice_make(bytes.data + 16, bytes.size - 16);
    put_side(TXNS, bytes);
    struct segment *s = segment_new(&fs, "t-0", 0, 1);
    int sound = txn_index_sound(s, end);
    ASSERT(sound == 0 || sound == 1);
    if (sound == 1) {
        uint32_t before = 0;
        ASSERT(s->txn_count == bytes.size / TXN_BYTES && bytes.size % TXN_BYTES == 0);
        while (before < s->txn_count && get_i64(bytes.data + before * TXN_BYTES + 18) < cut)
            before++;
        ASSERT(txn_index_truncate(s, cut) == 0 && s->txn_count == before);
    } else {
        int err = txn_index_truncate(s, cut);
        ASSERT(err == 0 || err == -EBADMSG);
        ASSERT(txn_index_reset(s) == 0 && txn_index_sound(s, end) == 1);
    }
    segment_free(s);
}

/* ---- beside a good log ---- */

static void note(void *ctx, int64_t producer_id UNUSED, int64_t first UNUSED)
{
    ++*(int *)ctx;
}

/* Each offset is in a batch of its own. How many aborted transactions are known. */
static int check_readable(struct log *l)
{
    uint64_t position = 0;
    struct log_range r;
    int aborted = 0;
    for (int64_t at = 0; at < good_end; at++) {
        uint8_t bytes[512];
        struct batch b;
        ASSERT(log_locate(l, at, log_end(l), 1, true, &r) == KERR_NONE && r.segment == 0 && r.position == position);
        ASSERT(r.size_bytes <= sizeof bytes && log_copy(l, &r, bytes) == 0);
        ASSERT(batch_read_header(slice_make(bytes, r.size_bytes), &b) == 0 && b.base_offset == at);
        position += r.size_bytes;
    }
    ASSERT(position == good[LOG].size);
    ASSERT(log_locate(l, 0, log_end(l), SIZE_MAX, true, &r) == KERR_NONE);
    ASSERT(log_aborted(l, 0, &r, note, &aborted, NULL) == KERR_NONE);
    return aborted;
}

/* Times of records rise, markers between them are of long ago. */
static void check_times(struct log *l)
{
    struct log_offset found;
    for (int i = 0; i < BATCHES - 1; i++) {
        int64_t wanted = i % TXN_BATCHES == TXN_BATCHES - 1 ? i + 1 : i;
        ASSERT(log_offset_by_time(l, 1000 + i, &found, NULL) == KERR_NONE && found.offset == wanted);
    }
    ASSERT(log_offset_of_max_time(l, &found, NULL) == KERR_NONE && found.offset == BATCHES - 2);
}

/* May the .txnindex that is there be the segment's, as far as one can see without the segment? */
static bool txns_seem_right(void)
{
    struct segment *s = segment_new(&fs, "t-0", 0, 1);
    int sound = txn_index_sound(s, INT64_MAX);
    ASSERT(sound == 0 || sound == 1);
    segment_free(s);
    return sound == 1;
}

static void beside_good_log(struct slice rest)
{
    if (rest.size == 0)
        return;
    uint8_t flags = rest.data[0];
    struct log_options o = options();
    struct log *l;
    rest = slice_make(rest.data + 1, rest.size - 1);
    put_side(LOG, buf_slice(&good[LOG]));
    put_side(EPOCHS, buf_slice(&good[EPOCHS]));
    for (int i = INDEX; i <= TXNS; i++)
        put_side(i, flags >> i & 1 ? take(&rest) : buf_slice(&good[i]));
    put_file(snapshot_name, buf_slice(&snapshot));
    bool whole = !(flags >> TXNS & 1) || !txns_seem_right();
    o.clean = flags & 1;
    o.recovery_point = o.clean ? good_end : mark;
    ASSERT(log_open(&o, &l) == 0);
    ASSERT(log_start(l) == 0 && log_end(l) == good_end);
    if (flags >> FILES & 1)
        check_times(l); /* before look-ups by offset did without a wrong index */
    int aborted = check_readable(l);
    ASSERT(!whole || aborted == BATCHES / TXN_BATCHES);
    ASSERT(o.clean || flags >> INDEX & 1 || flags >> TIMES & 1 || flags >> TXNS & 1 || l->marked);
    check_times(l);
    append(l, BATCHES);
    ASSERT(log_end(l) == good_end + 1);
    ASSERT(check_readable(l) == aborted);
    log_abandon(l);
}

/* ---- the inputs ---- */

static void add_side(struct buf *out, int kind)
{
    put_u16(buf_grow(out, 2), (uint16_t)good[kind].size);
    buf_append(out, good[kind].data, good[kind].size);
}

static void make_seed(unsigned which, struct buf *out)
{
    int kind = (int)(which % KINDS);
    buf_append(out, &(uint8_t){(uint8_t)kind}, 1);
    if (kind == GOOD_LOG) {
        uint8_t flags = (uint8_t)(which / KINDS);
        buf_append(out, &flags, 1);
        for (int i = INDEX; i <= TXNS; i++) {
            if (flags >> i & 1)
                add_side(out, i);
        }
    } else {
        uint8_t *limits = buf_grow(out, kind == TXN_INDEX ? 16 : INDEX_TIME_ENTRY);
        put_i64(limits, kind == TXN_INDEX ? good_end : mark);
        if (kind == TXN_INDEX)
            put_i64(limits + 8, mark);
        else
            put_i32(limits + 8, (int32_t)good[LOG].size / 2);
        buf_append(out, good[INDEX + kind].data, good[INDEX + kind].size);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    make_good();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice bytes = slice_make(data + 1, size - 1);
    switch (data[0] % KINDS) {
    case OFFSET_INDEX:
    case TIME_INDEX: one_index(data[0] % KINDS, bytes); break;
    case TXN_INDEX: txn_index(bytes); break;
    case GOOD_LOG: beside_good_log(bytes); break;
    }
    drop_files();
    return 0;
}
