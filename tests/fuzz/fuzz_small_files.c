// link: config log records base
/* fuzz_small_files.c - the files that say what a directory and a partition are: meta.properties, partition.metadata,
 * .kafka_cleanshutdown, leader-epoch-checkpoint, N.snapshot. Any bytes are taken or refused; what was taken is written
 * as it was understood, and then understood the same. */
#include "libs/config/meta_properties.h"
#include "libs/log/epochs.h"
#include "libs/log/logdir.h"
#include "libs/log/producers.h"
#include "tests/fuzz/mem_files.h"
#include "tests/fuzz/seeded.h"
#include <inttypes.h>
#include <unistd.h>

enum { META, PARTITION, CLEAN, EPOCHS, SNAPSHOT, KINDS };

static const struct file_system fs = {&ops, NULL};

/* ---- meta.properties, which is read from a real folder ---- */

static char folder[64];

static void remove_folder(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/meta.properties", folder);
    unlink(path);
    rmdir(folder);
}

static void write_meta(struct slice bytes)
{
    char path[96];
    if (folder[0] == '\0') {
        /* In memory: it is flushed for each input. */
        snprintf(folder, sizeof folder, "%s/karst-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        ASSERT(mkdtemp(folder) != NULL && atexit(remove_folder) == 0);
    }
    snprintf(path, sizeof path, "%s/meta.properties", folder);
    FILE *f = fopen(path, "w");
    ASSERT(f != NULL && fwrite(bytes.data, 1, bytes.size, f) == bytes.size && fclose(f) == 0);
}

static void meta(struct slice bytes)
{
    struct meta_properties m, again;
    char *error;
    write_meta(bytes);
    int err = meta_properties_read(folder, &m, &error);
    ASSERT(err == 0 ? error == NULL : err == -EINVAL && error != NULL);
    free(error);
    if (err < 0)
        return;
    ASSERT(m.node_id >= 0 && m.cluster_id[0] != '\0');
    ASSERT(meta_properties_write(folder, &m) == 0);
    ASSERT(meta_properties_read(folder, &again, &error) == 0);
    ASSERT(strcmp(m.cluster_id, again.cluster_id) == 0 && m.node_id == again.node_id &&
           memcmp(&m.directory_id, &again.directory_id, sizeof m.directory_id) == 0);
}

/* ---- those of a partition and a directory ---- */

static void partition(struct slice bytes)
{
    struct uuid id;
    put_file("partition.metadata", bytes);
    int err = logdir_read_partition_metadata(&fs, "t-0", &id);
    ASSERT(err == 0 || err == -EBADMSG);
}

static void clean(struct slice bytes)
{
    int64_t epoch, again;
    put_file(".kafka_cleanshutdown", bytes);
    ASSERT(logdir_take_clean(&fs, "t-0", &epoch) == 1 && logdir_take_clean(&fs, "t-0", &again) == 0);
    ASSERT(logdir_write_clean(&fs, "t-0", epoch) == 0);
    ASSERT(logdir_take_clean(&fs, "t-0", &again) == 1 && again == epoch);
}

static void leader_epochs(struct slice bytes)
{
    struct epochs e = {0}, again = {0};
    put_file(EPOCHS_FILE, bytes);
    int err = epochs_load(&e, &fs, "t-0");
    ASSERT(err == 0 ? e.on_disk : err == (bytes.size == 0 ? -ENODATA : -EBADMSG) && e.count == 0);
    ASSERT(epochs_store(&e, &fs, "t-0", true) == 0 && epochs_load(&again, &fs, "t-0") == 0);
    ASSERT(again.count == e.count);
    for (size_t i = 0; i < e.count; i++) {
        ASSERT(e.at[i].epoch == again.at[i].epoch && e.at[i].offset == again.at[i].offset);
        ASSERT(epochs_of_offset(&e, e.at[i].offset) == e.at[i].epoch);
    }
    if (e.count > 0) {
        size_t count = e.count;
        int64_t middle = e.at[count / 2].offset;
        epochs_truncate_end(&again, middle);
        epochs_truncate_start(&e, middle);
        ASSERT(again.count == count / 2 && e.count == count - count / 2 && e.at[0].offset == middle);
    }
    epochs_free(&e);
    epochs_free(&again);
}

static struct slice file_bytes(const char *path)
{
    const struct mem_file *f = find(path);
    ASSERT(f != NULL);
    return buf_slice(&f->bytes);
}

/* Written once it holds what can be known, and never anything else from then on. */
static void snapshot(struct slice bytes, bool mend_crc)
{
    struct buf copy = {0};
    struct producers *p = producers_new();
    buf_append(&copy, bytes.data, bytes.size);
    if (mend_crc && copy.size >= PRODUCER_SNAPSHOT_HEADER) {
        put_i32(copy.data + 6, (int32_t)((copy.size - PRODUCER_SNAPSHOT_HEADER) / PRODUCER_ENTRY_SIZE));
        put_u32(copy.data + 2, bytes_crc32c(0, copy.data + 6, copy.size - 6));
    }
    int err = producers_parse_snapshot(p, buf_slice(&copy), 0, INT64_MAX);
    ASSERT(err == 0 || (err == -EBADMSG && producers_count(p) == 0));
    ASSERT(producers_count(p) * PRODUCER_ENTRY_SIZE <= copy.size);
    size_t count = producers_count(p);
    int64_t first_open = producers_first_open(p);
    bool more = producers_remember_more(p);
    ASSERT(producers_write_snapshot(p, &fs, "t-0", 1, true) == 0);
    ASSERT(producers_load_snapshot(p, &fs, "t-0", 1, 0, INT64_MAX) == 0);
    ASSERT(producers_count(p) == count && producers_first_open(p) == first_open && producers_remember_more(p) == more);
    ASSERT(producers_write_snapshot(p, &fs, "t-0", 2, true) == 0);
    struct slice one = file_bytes("t-0/00000000000000000001.snapshot"),
                 two = file_bytes("t-0/00000000000000000002.snapshot");
    ASSERT(one.size == two.size && memcmp(one.data, two.data, one.size) == 0);
    producers_free(p);
    buf_free(&copy);
}

/* ---- the inputs ---- */

static void seed_snapshot(struct buf *out)
{
    enum { PRODUCERS = 3, BATCHES = 6 }; /* one more than are remembered */
    struct producers *p = producers_new();
    for (int i = 0; i < PRODUCERS * BATCHES; i++) {
        struct batch b = {
            .base_offset = i,
            .producer_id = i % PRODUCERS,
            .producer_epoch = 1,
            .base_sequence = i / PRODUCERS,
            .max_timestamp = i,
            .attributes = i % PRODUCERS == 1 ? BATCH_ATTR_TRANSACTIONAL : 0,
            .record_count = 1,
        };
        producers_apply(p, &b, -1, -1);
    }
    ASSERT(producers_write_snapshot(p, &fs, "t-0", 0, true) == 0);
    struct slice bytes = file_bytes("t-0/00000000000000000000.snapshot");
    buf_append(out, bytes.data, bytes.size);
    producers_free(p);
    drop_files();
}

static void make_seed(unsigned which, struct buf *out)
{
    buf_append(out, &(uint8_t){(uint8_t)(which % (2 * KINDS))}, 1);
    switch (which % KINDS) {
    case META:
        buf_printf(out, "#\n#Tue Nov 24 10:00:00 UTC 2026\ncluster.id=vPeOCWypqUOSepEvx0cbog\n"
                        "directory.id=0GiEQ2Wb7ZmrqPjIeMzYxg\nnode.id=1\nversion=1\n");
        break;
    case PARTITION: buf_printf(out, "version: 0\ntopic_id: vPeOCWypqUOSepEvx0cbog"); break;
    case CLEAN: buf_printf(out, "{\"version\":0,\"brokerEpoch\":%d}", 17); break;
    case EPOCHS: buf_printf(out, "0\n3\n0 0\n2 7\n5 123456789012\n"); break;
    case SNAPSHOT: seed_snapshot(out); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice bytes = slice_make(data + 1, size - 1);
    switch (data[0] % KINDS) {
    case META: meta(bytes); break;
    case PARTITION: partition(bytes); break;
    case CLEAN: clean(bytes); break;
    case EPOCHS: leader_epochs(bytes); break;
    case SNAPSHOT: snapshot(bytes, data[0] / KINDS % 2); break;
    }
    drop_files();
    return 0;
}
