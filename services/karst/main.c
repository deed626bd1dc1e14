/* karst - the command line. `karst up` is the parent of a whole constellation on one machine; `status` and `down` find
 * it through the data directory. Admin commands that need no JVM join it in later releases.
 *
 * Signals of `karst up`: SIGINT, SIGTERM, SIGHUP stop the processes in order (front end, coordinators, storage,
 * controller); a second one ends all of them at once. It keeps nothing that matters: killed with -9, its children see
 * it go (PR_SET_PDEATHSIG), drain and end; the next `karst up` finds the same data. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "services/karst/karst.h"

static const char usage[] =
    "karst " KARST_VERSION ", a Kafka-compatible streaming system\n"
    "\n"
    "  karst up --data DIR [--listen HOST:PORT] [--config FILE] [-d]\n"
    "           [--controllers N] [--storage N] [--frontends N] [--node FILE]...\n"
    "      runs a whole constellation on this machine: controller, storage, frontend, group, txn;\n"
    "      or, when FILE has karst.bus.listen, this host's part of one on several.\n"
    "      An empty DIR is formatted, an existing one is used. Ctrl-C stops in order, a second one at once.\n"
    "        --data DIR          where everything is kept, in Kafka's own format (made when missing)\n"
    "        --listen HOST:PORT  where Kafka clients connect (default: listeners of FILE, else 127.0.0.1:9092)\n"
    "        --config FILE       a Kafka server.properties; a key that has no effect yet is named in a warning\n"
    "        --controllers N     how many controllers keep the metadata, 1, 3 or 5 (default: as many as DIR has)\n"
    "        --storage N         how many storage nodes keep the data, 1 to 16 (default: as many as DIR has)\n"
    "        --frontends N       how many front ends serve clients, 1 to 8 (default: 1); of several hosts also 0\n"
    "        --node FILE         a further node of Kafka's in combined mode, with the directories that its\n"
    "                            server.properties names: the other nodes of a Kafka of several, one a file\n"
    "        -d, --detach        return when it answers, and leave it running\n"
    "  karst format --data DIR --config FILE\n"
    "      makes new, empty folders in log.dirs of FILE directories of the cluster on DIR, which does not run\n"
    "  karst format --first --data DIR --config FILE\n"
    "      once, on the first of several hosts: DIR, which is empty, becomes that of a new cluster's first "
    "controller.\n"
    "      karst up makes all others join it\n"
    "  karst format --initial-controllers ID@HOST:PORT:DIRECTORY,... --cluster-id ID --data DIR --config FILE\n"
    "      DIR, which is empty, becomes that of one of several controllers that are formed at once, as with\n"
    "      kafka-storage.sh: each with the same list. HOST:PORT is its controller listener, DIRECTORY a uuid\n"
    "  karst hosts FOLDER HOST HOST...\n"
    "      makes what a new constellation on these hosts needs, by address or name: in FOLDER, which must not be "
    "there,\n"
    "      a folder for each with its keys and a server.properties. The first three have controllers\n"
    "  karst key FILE\n"
    "      makes a host's pair of keys for the bus: the secret one in FILE, the public one is printed\n"
    "  karst status --data DIR [--json]\n"
    "      shows its processes; exit status 3 when none runs on DIR\n"
    "  karst restart [ROLE-ID] --data DIR [--bin FOLDER]\n"
    "      restarts a process, or all, one after the other, and waits until it serves and has caught up;\n"
    "      its program is from now on that in FOLDER: so a release is replaced by the next, or taken back\n"
    "  karst down --data DIR\n"
    "      stops it in order, and returns when it has stopped\n"
    "  karst version\n"
    "  karst help\n";

static int wrong_usage(const char *what, const char *argument)
{
    fprintf(stderr, "karst: %s%s%s; see: karst help\n", what, argument ? " " : "", argument ? argument : "");
    return STATUS_USAGE;
}

enum { HOSTS_MAX = 100 };

struct arguments {
    struct up_options up;
    const char *bin, *process;
    bool json;
};

/* 0: no number from 1 to max. */
static int count_of(const char *text, int max)
{
    char *end;
    long n = strtol(text, &end, 10);
    return *text >= '1' && *text <= '9' && *end == 0 && n <= max ? (int)n : 0;
}

/* NULL-terminated getopt of all commands; which of them a command takes is checked in `allowed`. */
static int parse(int argc, char **argv, const char *allowed, struct arguments *ret)
{
    static const struct option options[] = {{"data", required_argument, NULL, 'D'},
                                            {"listen", required_argument, NULL, 'l'},
                                            {"config", required_argument, NULL, 'c'},
                                            {"detach", no_argument, NULL, 'd'},
                                            {"controllers", required_argument, NULL, 'n'},
                                            {"storage", required_argument, NULL, 's'},
                                            {"frontends", required_argument, NULL, 'f'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"first", no_argument, NULL, '1'},
                                            {"initial-controllers", required_argument, NULL, 'i'},
                                            {"cluster-id", required_argument, NULL, 'C'},
                                            {"bin", required_argument, NULL, 'b'},
                                            {"node", required_argument, NULL, 'N'},
                                            {NULL, 0, NULL, 0}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "d", options, NULL)) != -1) {
        if (option == '?' || strchr(allowed, option) == NULL)
            return wrong_usage("does not understand", argv[optind - 1]);
        switch (option) {
        case 'D': ret->up.data = optarg; break;
        case 'l': ret->up.listen = optarg; break;
        case 'c': ret->up.config = optarg; break;
        case 'd': ret->up.detach = true; break;
        case 'n':
            if (strcmp(optarg, "1") != 0 && strcmp(optarg, "3") != 0 && strcmp(optarg, "5") != 0)
                return wrong_usage("--controllers takes 1, 3 or 5, not", optarg);
            ret->up.nodes.controllers = optarg[0] - '0';
            break;
        case 's':
            ret->up.nodes.storage = count_of(optarg, STORAGE_MAX);
            if (ret->up.nodes.storage == 0)
                return wrong_usage("--storage takes a number from 1 to 16, not", optarg);
            break;
        case 'f':
            ret->up.nodes.frontends = strcmp(optarg, "0") == 0 ? NODES_NONE : count_of(optarg, FRONTENDS_MAX);
            if (ret->up.nodes.frontends == 0)
                return wrong_usage("--frontends takes a number from 0 to 8, not", optarg);
            break;
        case 'N':
            if (ret->up.node_count == NODE_FILES_MAX)
                return wrong_usage("--node is given too often, with", optarg);
            ret->up.node_files[ret->up.node_count++] = optarg;
            break;
        case '1': ret->up.first = true; break;
        case 'i': ret->up.initial_controllers = optarg; break;
        case 'C': ret->up.cluster_id = optarg; break;
        case 'j': ret->json = true; break;
        case 'b': ret->bin = optarg; break;
        }
    }
    if (optind < argc && strchr(allowed, 'P') != NULL)
        ret->process = argv[optind++];
    if (optind < argc)
        return wrong_usage("does not understand", argv[optind]);
    if (ret->up.data == NULL || *ret->up.data == 0)
        return wrong_usage("needs --data DIR", NULL);
    if (ret->up.node_count > 0 && ret->up.nodes.controllers + ret->up.nodes.storage > 0)
        return wrong_usage("--node says how many controllers and storage nodes there are", NULL);
    if (ret->up.node_count > 0)
        ret->up.nodes.controllers = ret->up.nodes.storage = 1 + ret->up.node_count;
    if (ret->up.first && ret->up.initial_controllers != NULL)
        return wrong_usage("--first is for one controller, and --initial-controllers for several", NULL);
    if (ret->up.initial_controllers == NULL && ret->up.cluster_id != NULL)
        return wrong_usage("--cluster-id is for --initial-controllers alone", NULL);
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    const char *command = argc > 1 ? argv[1] : "help";
    int r;
    if (!strcmp(command, "help") || !strcmp(command, "--help") || !strcmp(command, "-h")) {
        fputs(usage, stdout);
        return 0;
    }
    if (!strcmp(command, "version") || !strcmp(command, "--version")) {
        puts("karst " KARST_VERSION);
        return 0;
    }
    if (!strcmp(command, "up"))
        return (r = parse(argc - 1, argv + 1, "DlcdnsfN", &a)) ? r : up_main(&a.up);
    if (!strcmp(command, "format"))
        return (r = parse(argc - 1, argv + 1, "Dc1iC", &a)) ? r : format_main(&a.up);
    if (!strcmp(command, "hosts"))
        return argc > 3 && argc <= 3 + HOSTS_MAX ? hosts_main(argv[2], argv + 3, argc - 3)
                                                 : wrong_usage("hosts needs FOLDER, and 1 to 100 times HOST", NULL);
    if (!strcmp(command, "key"))
        return argc == 3 ? key_main(argv[2]) : wrong_usage("key needs FILE", NULL);
    if (!strcmp(command, "status"))
        return (r = parse(argc - 1, argv + 1, "Dj", &a)) ? r : status_main(a.up.data, a.json);
    if (!strcmp(command, "restart"))
        return (r = parse(argc - 1, argv + 1, "DbP", &a)) ? r : restart_main(a.up.data, a.process, a.bin);
    if (!strcmp(command, "down"))
        return (r = parse(argc - 1, argv + 1, "D", &a)) ? r : down_main(a.up.data);
    return wrong_usage("has no command", command);
}
