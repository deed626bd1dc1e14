/* storage.h - what the files of karst-storage share.
 *
 * I1  a replica is in the table exactly while its log is open. Its log is in one directory at any time, replica->dir.
 * I2  a log is touched by the loop's thread only; slow threads get descriptors of their own (log_flush).
 * I3  an append is answered only after its bytes are written, and flushed where flush.messages asks for it. */
#ifndef KARST_SERVICES_STORAGE_STORAGE_H
#define KARST_SERVICES_STORAGE_STORAGE_H

#include "libs/base/log.h"
#include "libs/bus/ref.h"
#include "libs/config/config.h"
#include "libs/log/log.h"
#include "libs/log/logdir.h"
#include "libs/metadata/image.h"
#include "libs/replica/throttle.h"
#include "libs/service/service.h"
#include <pthread.h>
#include <uthash.h>
#include <utlist.h>

struct storage;
struct append_call;
struct flush_item;
struct flush_round;
struct read_call;
struct cleaner;
struct move;
struct future;
struct assignment;
struct preferred;
struct clean_job;
struct replica_core;
struct fetch_member;
struct fetcher;
struct isr_change;
struct peer;
struct deletion;

/* What somebody waits for, and what should not stay unflushed for long (flush.c). */
enum flush_lane { FLUSH_NOW, FLUSH_LATER, FLUSH_LANES };
struct flush_queue {
    struct replica *wanted; /* by want_next, in their order */
    size_t count;
    struct flush_round *round; /* under way */
};

struct replica_key {
    struct uuid topic_id;
    int32_t partition;
};

struct replica {
    struct replica_key key;
    UT_hash_handle hh;
    struct storage *storage;
    struct directory *dir;
    char *topic;
    struct log *log;
    int32_t leader, leader_epoch; /* of the image; -1: none */
    bool internal;                /* only its coordinator's owner appends */
    bool known;                   /* the image assigns it to us */

    struct replica_core *core; /* replication.h; NULL: it has no others beside it */
    int32_t min_isr;
    bool leader_throttled, follower_throttled; /* the topic's lists name it */
    struct fetch_member *fetch;                /* of a follower */
    struct isr_change *isr_change;             /* of a leader, on its way to the controller */
    struct append_part *waiting_acks;          /* parts whose answer waits for the high watermark */

    bool touched; /* in storage->touched */
    struct replica *next_touched;

    struct flush_item *flush; /* under way */
    bool flush_again, wants_flush;
    bool wants_mark;            /* its next flush leaves one */
    enum flush_lane flush_lane; /* where it is in wanted */
    struct replica *want_prev, *want_next;
    uint64_t flushed_ms;           /* monotonic, of the last flush */
    struct append_part *preparing; /* parts to be compressed anew, or behind such: staged in this order */
    struct prepare_job *prepare;   /* of the first of them, under way */
    bool prepare_waits;            /* in storage->prepare_waiting */
    struct replica *next_prepare;
    struct append_part *waiting_flush; /* parts whose answer waits for the recovery point */

    struct read_part *readers;        /* parked */
    struct interest_part *interested; /* of sets (interest.c) */

    struct given_file *files; /* given away to readers on this machine */

    struct move *move; /* to another directory; NULL: none */

    int64_t clean_to;      /* the first offset that was not compacted yet; -1: nothing ever was */
    int64_t point_on_disk; /* the recovery point in the checkpoint file */
    int64_t point_writing; /* the one that is being written there */
    struct clean_job *cleaning;
    uint64_t clean_after_ms; /* monotonic: not before */
    bool uncleanable;        /* it is damaged */
    bool retention_waits;    /* for the end of the cleaning */
};

/* A folder of a deleted topic, on its way out. */
struct removal {
    struct directory *dir;
    struct loop_timer *timer;
    char *path;
    struct removal *prev, *next;
};

/* A partition in a directory whose log is not open.
 *
 *   WAITS --opening_next--> RUNS --replica_opened--> a replica
 *                            |---> STAYS: its files are damaged, or its directory has failed
 *
 * Nobody makes the partition anew meanwhile, and what the checkpoints said of it is kept for the next start. */
enum unopened_state { UNOPENED_WAITS, UNOPENED_RUNS, UNOPENED_STAYS };
struct unopened {
    UT_hash_handle hh;
    struct directory *dir;
    struct unopened *prev, *next; /* of dir->waiting, while it waits */
    char *name;                   /* of its folder */
    char *topic;
    int32_t partition;
    struct uuid topic_id; /* of the topic that the image assigns to us under this name; zero: none so far */
    enum unopened_state state;
    bool is_new; /* made, or its damaged partition.metadata is: under topic_id */
    int64_t recovery_point, log_start, high_mark, clean_to; /* -1: no line */
    int err;                                                /* why it stays; 0: its directory has failed */
    char *why;                                              /* the log's words for it; may be NULL */
    int64_t size_bytes;                                     /* of its .log files, when its damage was found */
};

/* A checkpoint file of a directory, as it was last written. */
struct checkpoint_state {
    uint32_t crc;
    bool no_room;     /* there was none on the disk, and that was told */
    uint64_t counted; /* its contents so far */
    uint64_t noted;   /* which of them the replicas' point_writing is of */
    /* Of the slow pool and the loop: what is written is never older than what was written before. */
    pthread_mutex_t lock;
    uint64_t written; /* which of the contents; under lock */
};

/* Is there room for records on a directory's disk? (room.c) */
struct room {
    bool missing;        /* an append failed for want of it */
    bool telling, known; /* that it is missing: in the heartbeat under way; to the controller */
    uint64_t told_ms;    /* when the log last said so */
    uint64_t least_ms;   /* missing for so long after each append that failed */
    uint64_t until_ms;   /* the time when that is over */
    uint64_t came_ms;    /* when there was room again; 0: there always was */
    struct loop_timer *timer;
};

/* A folder of log.dirs. Its files are its own: a failure of one takes the partitions in it offline, and no others. */
struct directory {
    struct storage *storage;
    char *path;
    char *absolute; /* as tools name it */
    bool cordoned;  /* takes no new partitions */
    struct uuid id; /* zero: it could not be read at the start */
    int lock_fd;
    int failed;         /* 0, or the -errno that took it offline: for good */
    bool left;          /* its replicas are gone since */
    bool telling, told; /* the controller of that failure: in the heartbeat under way; taken */
    struct loop_timer *tell_timer;
    bool has_metadata_log;
    bool was_clean;
    bool rewrite; /* a flush failed in the life before: what is read again is written again, and flushed at once */
    int64_t previous_epoch; /* of the broker, at its last clean stop; -1: not known */
    size_t replica_count;
    struct checkpoint_state starts, marks, points, cleaned;
    bool checkpointing;
    bool writing_starts;
    bool names_gone;                              /* the checkpoints may have lines of partitions that are not there */
    struct starts_wait *starts_now, *starts_next; /* for the write that is under way, and for the one after it */
    bool marking; /* the recovery points are written when the logs that were chosen are marked */
    struct room room;
    struct flush_queue lanes[FLUSH_LANES];
    struct removal *removals;
    struct unopened *unopened; /* by name */
    struct unopened *waiting;  /* of these, in the order in which they are opened */
    size_t waiting_count;
    size_t openings;       /* jobs under way */
    size_t opened, stayed; /* logs of the start, so far */
    bool opening;          /* the start's logs are being opened */
    uint64_t opening_since_ms;
    struct log_progress progress;
};

struct storage {
    struct service *service;
    struct loop *loop;
    struct bus *bus;
    const struct config *config;

    struct directory *dirs; /* in the order of log.dirs */
    size_t dir_count;
    ProtobufCBinaryData *offline_ids; /* of one heartbeat */
    bool offline;                     /* no directory is left, or the metadata's is gone: the process ends */
    bool dirs_full;                   /* others are to hear with the next turn that one is full */
    bool dirs_failed;                 /* replicas of a directory that has failed are to go in the next turn */
    bool may_open;                    /* there is an image: logs may be opened */
    uint64_t jitter_seed;
    size_t made_now; /* partitions made in this turn, on the loop's thread */

    struct replica *replicas;
    struct image *image;
    struct replica *touched;
    struct log_pool *pool;       /* of all logs */
    struct append_call *appends; /* of this turn */
    struct append_call *append_pool;
    size_t append_pooled;
    struct read_call *read_pool;
    size_t read_pooled;
    struct arena *read_arena;  /* of one answer */
    struct read_call **parked; /* a heap by due_ms */
    size_t parked_count, parked_capacity;
    struct loop_timer *parked_timer;
    uint64_t parked_due_ms; /* when it fires */
    struct cold_job *cold;
    size_t cold_running;
    struct read_call *reads; /* parked */
    struct interest *interests, *interests_by_use;
    size_t interest_parts;           /* of all of them */
    size_t flushes;                  /* rounds under way */
    size_t look_ups;                 /* calls of list_offsets.c that wait for the disk */
    size_t preparing;                /* parts in the replicas' lists */
    struct replica *prepare_waiting; /* whose first part waits for a job */
    struct prepare_job *prepare_jobs;
    struct given_file *files; /* of all replicas, the one used last at the end */
    size_t file_count;
    struct cleaner *cleaner;
    struct move *moves;
    size_t moves_running;  /* steps on the slow pool */
    uint64_t moves_due_ms; /* monotonic: no step before, for the rate's sake */
    struct future *futures;
    struct peer *peers;
    struct fetcher *fetchers;
    struct isr_change *isr_changes;
    bool isr_asking;    /* a call is under way */
    size_t isr_changed; /* by the controller's last answer */
    bool brokers_changed;
    bool rack_aware; /* replica.selector.class: consumers are told of replicas in their rack */
    struct throttle leader_throttle, follower_throttle;
    int64_t leader_rate, follower_rate; /* bytes a second */
    struct deletion *deletions;
    uint64_t acks_due_ms;
    struct loop_timer *acks_timer, *isr_timer, *fetchers_timer, *lag_timer, *peers_timer;
    struct assignment *assignments;
    bool assigning; /* a call is under way */
    struct preferred *preferred;
    struct loop_timer *moves_timer, *assign_timer;
    struct loop_timer *housekeeping, *retention, *marks_timer, *points_timer, *starts_timer, *flush_timer,
        *progress_timer;
    bool commit_comes; /* LOOP_COMMIT of this turn is still ahead: no other turn is needed for what is staged */
    bool draining, drained;
    bool settings_changed;   /* the flush timer is to be set anew */
    uint64_t flush_least_ms; /* flush.ms: the least of all replicas; INT64_MAX: none has one */
    struct config_listeners listeners;
    struct arena *arena; /* as long as the process */
    struct buf scratch;  /* of one reply */
};

/* ---- main.c ---- */
void storage_arm_flush_timer(struct storage *s);
/* Old segments go; later, while the log is being compacted. */
void storage_retain(struct replica *r);

/* ---- directory.c ---- */
NODISCARD int directories_open(struct storage *s); /* the exit status, after a message */
void directories_free(struct storage *s);
/* Takes it offline. Its replicas are refused from here on, and go with the next turn. err: the disk's. */
void directory_failed(struct directory *d, int err);
/* For the next start: a flush may have failed there (logdir.h). */
void directory_note_failure(const struct directory *d);
void directories_turn(void *ctx); /* the first of a turn */
/* NULL: none of that id is in use. */
NODISCARD struct directory *directory_by_id(struct storage *s, struct uuid id);
/* Where a new replica goes. p: what the metadata says of its partition. NULL: nowhere; *ret_why says it. */
NODISCARD struct directory *directory_for(struct storage *s, const struct image_partition *p, bool is_new,
                                          const char **ret_why);
/* cordoned.log.dirs may have changed. */
void directories_on_config(struct storage *s);
void directory_remove_later(struct directory *d, char *path, int64_t delay_ms);
/* For the registration and the heartbeat; in the process's arena. */
void directories_register(struct storage *s, Karst__Bus__RegisterRequest *request);
void directories_heartbeat(struct storage *s, Karst__Bus__HeartbeatRequest *request);
void directories_on_heartbeat_taken(void *ctx);

/* ---- unopened.c ---- */
/* Notes what is in the directory. 0 or -errno: it cannot be read. */
NODISCARD int directory_list(struct directory *d);
/* It waits, without a line in any checkpoint. */
struct unopened *unopened_add(struct directory *d, struct slice topic, int32_t partition);
NODISCARD struct unopened *unopened_find(struct directory *d, struct slice topic, int32_t partition);
void unopened_wait(struct unopened *u);
void unopened_run(struct unopened *u);
/* err 0: its directory has failed. why may be NULL, and is taken. */
void unopened_stay(struct unopened *u, int err, char *why);
void unopened_remove(struct unopened *u); /* does not run */
const char *unopened_reason(const struct unopened *u);
/* It stays for want of something that may come back: room on the disk, descriptors, memory. */
bool unopened_may_pass(int err);

/* ---- opening.c ---- */
/* There is an image: what waits is opened, and the progress told. */
void opening_begin(struct storage *s);
/* The partition is to be opened or made soon; the first few of a turn at once, before this returns, and then u is gone.
 */
void opening_ask(struct unopened *u);
/* There may be more that waits. */
void opening_more(struct directory *d);
/* What stayed because there was no room, or no descriptor, is tried again. */
void opening_retry(struct storage *s);
/* A drain: what runs is given up where it is. */
void opening_stop(struct storage *s);
bool opening_under_way(const struct storage *s);

/* ---- progress.c ---- */
/* A line a directory in the log, each second while its logs are opened; and what `karst status` shows. */
/* The number of logs has changed, or does so soon. */
void progress_soon(struct storage *s);
void progress_write(struct storage *s);

/* ---- marks.c ---- */
void marks_on_timer(void *ctx);
/* A round of flushes of the directory has ended. */
void marks_on_round(struct directory *d);

/* ---- damaged.c: what was refused for damage stays closed, but ---- */
/* files that must not stand in the way of the partition leave, and u with them: those of an older topic of the name,
 * and those that nobody knows the topic of, when other nodes have all that was acknowledged and nobody counts on this
 * one. True: the caller makes the partition anew. */
bool damaged_set_aside(struct unopened *u, const struct image_topic *t, const struct image_partition *p);
/* Where nothing was ever flushed there is nothing to keep that damage could cut away, and a power cut may have torn no
 * more than partition.metadata: true when the log is opened once more, under u->topic_id. Its start may be above 0, as
 * DeleteRecords waits for a checkpoint and for no flush. */
bool damaged_begin_again(struct unopened *u);

/* ---- checkpoints.c ---- */
/* For the log starts as they are now: done is called, from the loop, when they are durable (0) or could not be written
 * (-errno). One write serves all who come while another is under way. w is the caller's until then. */
struct starts_wait {
    struct starts_wait *next;
    struct directory *dir;
    void (*done)(struct starts_wait *w, int err);
};
void checkpoints_make_starts_durable(struct starts_wait *w);
void checkpoints_on_marks(void *ctx);
void checkpoints_on_starts(void *ctx);
/* The recovery points, on the slow pool. */
void checkpoints_write_points(struct directory *d);
/* The log was cut: no point behind its end is on the disk when this returns, or records that are yet to come there
 * would be taken for flushed. */
void checkpoints_cut(struct replica *r);
/* How far logs are compacted, if it has changed. */
void checkpoints_cleaned(struct directory *d);
/* A replica is about to come to the directory: how its log starts, and how far it is compacted, is durable before this
 * returns. Not while a checkpoint is being written. 0 or -errno. */
NODISCARD int checkpoints_arrival(struct directory *d);
/* A partition is about to be made: what the files say of one that had its name before is struck out, or a start after a
 * kill would take it for the new one's. 0, or -errno: the line may still be there, and nothing is to be made. */
NODISCARD int checkpoints_strike_out(struct directory *d);
bool checkpoints_under_way(const struct storage *s);
/* Clean stop: closes all logs, writes checkpoints and the marker. */
void directories_close(struct storage *s);

/* ---- replicas.c ---- */
NODISCARD struct replica *replica_find(struct storage *s, struct uuid topic_id, int32_t partition);
NODISCARD struct replica *replica_by_name(struct storage *s, struct slice topic, int32_t partition);
/* The log of a partition that was not open is; u is gone. */
void replica_opened(struct unopened *u, struct log *log);
/* It could not be, for this reason; u stays, or is gone. */
void replica_not_opened(struct unopened *u, int err, char *why);
/* What recovery finds may be in the page cache only. Where flush.messages wants records flushed, nobody may be shown
 * one that a power cut could still take: a group coordinator would answer with a commit that is gone afterwards. Any
 * thread that has the log. 0 or -errno. */
NODISCARD int replica_flush_recovered(struct log *log);
void replicas_on_image(void *ctx, const struct image *old_image, const struct image *new_image);
/* Registered, and the image is of now: folders that it does not know are set aside. */
void replicas_on_ready(void *ctx);
void replica_touch(struct replica *r);
void replicas_free(struct storage *s);
/* Answers whoever waits for it, and takes it out of the table, its folder being removed. */
void replica_leave(struct replica *r);
/* The same of a directory that has failed: the folder stays as it is. */
void replica_drop(struct replica *r);
/* For a name that no other folder has. */
struct uuid replica_random_id(void);
/* Why there is no replica: not known (t may be NULL), not ours, or its log is not open. */
enum kafka_error replica_missing(struct storage *s, const struct image_topic *t, int32_t partition);
/* May we answer for the partition? NONE, or the client's error; epoch -1: any. */
enum kafka_error replica_check_leader(const struct storage *s, const struct replica *r, int32_t epoch);
/* The same for a partition that is named; *ret_replica may be set with an error, too. */
enum kafka_error replica_look_up(struct storage *s, struct slice topic, int32_t partition, int32_t epoch,
                                 struct replica **ret_replica);

/* ---- assign.c ---- */
/* The controller is told that the replica is in that directory; it counts what was told last. */
void assign_tell(struct storage *s, const struct replica_key *key, struct uuid dir);
void assign_forget(struct storage *s, const struct replica_key *key);
/* Does the metadata know where the replica is? */
void assign_check(struct replica *r, const struct image_partition *p);
void assign_turn(void *ctx); /* LOOP_COMMIT */
void assign_free(struct storage *s);

/* ---- moves.c ---- */
/* The replica is to go to another directory; it must not be on its way already. folder: of the copy, from an earlier
 * life; NULL: a new one. */
void moves_start(struct replica *r, struct directory *to, const char *folder);
/* It stays where it is. */
void moves_cancel(struct replica *r);
/* The replica goes, or its directory has failed. */
void moves_leave(struct replica *r);
/* What is on its way there stays where it is. */
void moves_directory_failed(struct directory *d);
const struct directory *moves_target(const struct replica *r); /* NULL: it is not moved */
/* Has the controller been told, or is it being told, of the new directory? */
bool moves_is_told(const struct replica *r);
/* Of a replica that is moved: the size of the copy, and how many offsets it lacks at most. */
void moves_describe(const struct replica *r, int64_t *ret_size, int64_t *ret_lag);
void moves_on_assigned(struct storage *s, const struct replica_key *key, struct uuid dir, bool accepted);
void moves_turn(void *ctx); /* LOOP_COMMIT, between the writes and the start of flushes */
/* Draining: nothing is on its way any more. What had begun is remembered by its folder. */
NODISCARD bool moves_drained(struct storage *s);
void moves_free(struct storage *s);

/* ---- futures.c ---- */
/* A folder of a copy; log_start, clean_to: the lines of its directory's checkpoints, -1: none. */
void futures_note(struct directory *d, const char *name, struct slice topic, int32_t partition, int64_t log_start,
                  int64_t clean_to);
/* There is no folder of the replica. True: there was a whole copy, which is the replica now, and is being opened. With
 * *ret_why: it cannot be known now whether the copy is whole, and the replica stays closed. */
NODISCARD bool futures_take(struct storage *s, const struct image_topic *t, int32_t partition, const char **ret_why);
/* The replica's log is open: its move goes on. */
void futures_on_opened(struct replica *r);
void futures_on_ready(struct storage *s);
void futures_free(struct storage *s);

/* ---- alter_replica_log_dirs.c ---- */
/* Where a partition that comes was asked to be made; forgotten with that. NULL: nowhere. */
struct directory *preferred_take(struct storage *s, struct slice topic, int32_t partition);
void preferred_free(struct storage *s);

/* ---- settings.c ---- */
/* A key that has only dynamic values, of this node or of all. */
int64_t settings_of_node(const struct storage *s, const char *key, int64_t otherwise);
/* cordoned.log.dirs. */
struct slice settings_cordoned(const struct storage *s, struct arena *arena);
void settings_of_topic(struct storage *s, const char *topic, struct log_config *ret_config);
/* A broker key: its dynamic values over the file. */
int64_t settings_of_broker(struct storage *s, const char *key);
/* log.cleaner.*, with what was set while running. */
struct cleaner_settings {
    int threads;
    double io_bytes_per_second, load_factor;
    int64_t dedupe_buffer_bytes, io_buffer_bytes, backoff_ms;
};
void settings_of_cleaner(struct storage *s, struct cleaner_settings *ret_settings);

/* ---- cleaner.c ---- */
NODISCARD struct cleaner *cleaner_open(struct storage *s);
/* No log is cleaned any more; what is under way ends soon. Takes NULL. */
void cleaner_stop(struct cleaner *c);
bool cleaner_is_busy(const struct cleaner *c);
struct cleaner *cleaner_free(struct cleaner *c); /* takes NULL; returns NULL */
/* The replica's log is to be cleaned no more, now: it goes on as it is, perhaps a step later. */
void cleaner_abort(struct replica *r);
/* The replica goes. */
void cleaner_forget(struct replica *r);

/* ---- append.c ---- */
struct append_part {
    struct append_call *call;
    struct replica *replica; /* NULL: refused */
    struct log_append append;
    enum kafka_error error;
    const char *message;
    int64_t log_start;
    bool staged;
    struct buf made; /* compressed anew; append.bytes are in it */
    struct append_part *next_waiting;
};
void append_on_call(void *ctx, struct rpc *rpc);
void append_free(struct storage *s);
/* The turn's appends, after their logs were committed: those that need no flush are answered. */
void append_answer_turn(struct storage *s);
/* A flush of the replica has ended. */
void append_on_flushed(struct replica *r, int err);
/* A part has left its replica's list: it is staged; or, with an error set, refused. */
void append_on_prepared(struct append_part *p);
/* acks.c: the call's answer waits for one more part; for one less, with that error. */
void append_waits_for_acks(struct append_call *c);
void append_on_acks(struct append_part *p, enum kafka_error error);
uint64_t append_due_ms(const struct append_call *c); /* the producer's timeout is over */

/* ---- prepare.c ---- */
/* Must the part wait, for its own sake or behind others? */
NODISCARD bool prepare_is_wanted(const struct append_part *p);
void prepare_put(struct append_part *p);
/* The replica goes: its parts are refused. */
void prepare_forget(struct replica *r);
void prepare_free(struct storage *s);

/* ---- read.c ---- */
struct read_part {
    struct read_call *call;
    struct replica *replica; /* NULL: not ours */
    const Karst__Bus__ReadPartition *request;
    struct interest_part *interest; /* NULL: the call is of no set */
    size_t bytes;                   /* what it had when it was last looked at */
    struct read_part *prev, *next;  /* of replica->readers */
};
void read_on_call(void *ctx, struct rpc *rpc);
void read_free(struct storage *s);
/* Nothing is read any more: what names replicas goes before they do. */
void read_end(struct storage *s);
/* The replica got records, or a new log start or leader: readers that have enough now are answered. */
void read_wake(struct replica *r);
/* The replica goes: whoever waits for it is answered. */
void read_wake_all(struct replica *r);
/* The replica is about to be freed: calls that wait for the disk forget it. */
void read_forget(struct replica *r);
void read_answer_all(struct storage *s);
/* Housekeeping: sets that nobody reads any more go. */
void interests_idle(struct storage *s);

/* ---- files.c ---- */
/* The file of a range, to be shared with whoever reads on this machine; a count is the cache's. NULL: copy. */
NODISCARD struct ref_file *files_get(struct replica *r, const struct log_range *range);
/* Segments may have been removed or replaced. */
void files_check(struct replica *r);
/* The replica goes. */
void files_drop(struct replica *r);
/* Housekeeping: those that nobody asked for since the last time go. */
void files_idle(struct storage *s);

/* ---- turn.c ---- */
void turn_begin(void *ctx);  /* LOOP_SERVE */
void turn_commit(void *ctx); /* LOOP_COMMIT, or earlier where an order matters */

/* ---- room.c ---- */
/* An append to the replica failed as the disk is full: from here on its directory counts as full. */
void room_is_missing(const struct replica *r);
/* Tells the others of directories that are full since the last turn. */
void room_turn(struct storage *s);
/* The controller has taken the heartbeat that directories_heartbeat filled. */
void room_on_told(struct directory *d);
void room_stop(struct directory *d);

/* ---- flush.c ---- */
/* The log is flushed with the next round of the lane; append_on_flushed follows, at once where that cannot be. */
void flush_want(struct replica *r, enum flush_lane lane);
/* One that leaves a mark for the next start. */
void flush_want_mark(struct replica *r);
void flush_unwant(struct replica *r);
/* Starts what is wanted, unless a round is under way: LOOP_COMMIT, behind turn_commit. */
void flush_start(void *ctx);
/* The replica goes: the end of its flush has nobody to tell. */
void flush_forget(struct replica *r);
void flush_on_timer(void *ctx);

/* ---- mirrored Kafka requests, one file each ---- */
void list_offsets_on_call(void *ctx, struct rpc *rpc);
void offset_for_leader_epoch_on_call(void *ctx, struct rpc *rpc);
void delete_records_on_call(void *ctx, struct rpc *rpc);
/* Followers may have moved their log starts. over: whoever waits for them is answered now. */
void deletions_look(struct storage *s, bool over);
void alter_replica_log_dirs_on_call(void *ctx, struct rpc *rpc);
void describe_configs_on_call(void *ctx, struct rpc *rpc);
void describe_log_dirs_on_call(void *ctx, struct rpc *rpc);
void describe_producers_on_call(void *ctx, struct rpc *rpc);

#endif
