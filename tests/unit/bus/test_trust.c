/* The files that say who may be at the other end: good ones, wrong ones, and a list that changes. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libs/bus/trust.h"

static char folder[32], key_path[64], list_path[64], public_key[TRUST_KEY_CHARS + 1], other_key[TRUST_KEY_CHARS + 1];

static void begin(void)
{
    char path[64], *error = NULL;

    snprintf(folder, sizeof folder, "/tmp/unit-trust-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(key_path, sizeof key_path, "%s/key", folder);
    snprintf(list_path, sizeof list_path, "%s/list", folder);
    snprintf(path, sizeof path, "%s/other", folder);
    cr_assert_eq(trust_make_key(key_path, public_key, &error), 0, "%s", error);
    cr_assert_eq(trust_make_key(path, other_key, &error), 0, "%s", error);
}

static void end(void)
{
    char command[64];

    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(trust, .init = begin, .fini = end);

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static void write_list(const char *format, const char *key)
{
    char text[1024];

    snprintf(text, sizeof text, format, key);
    write_file(list_path, text);
}

static struct trust *opened(void)
{
    struct trust *t = NULL;
    char *error = NULL;

    cr_assert_eq(trust_open(key_path, list_path, &t, &error), 0, "%s", error);
    return t;
}

static void is_refused(int expected, const char *word)
{
    struct trust *t = NULL;
    char *error = NULL;

    cr_expect_eq(trust_open(key_path, list_path, &t, &error), expected);
    cr_assert_not_null(error);
    cr_expect(strstr(error, word), "%s", error);
    free(error);
}

Test(trust, hosts_and_keys_are_found_either_way)
{
    write_list("# hosts\n\n 10.0.0.1\t%s \n10.0.0.2  0000000000000000000000000000000000000000", public_key);
    struct trust *t = opened();

    cr_expect_str_eq(trust_public_key(t), public_key);
    cr_expect_eq(strlen(trust_secret_key(t)), TRUST_KEY_CHARS);
    cr_expect_str_eq(trust_key_of(t, "10.0.0.1"), public_key);
    cr_expect_null(trust_key_of(t, "10.0.0.3"));
    cr_expect_str_eq(trust_host_of(t, "0000000000000000000000000000000000000000"), "10.0.0.2");
    cr_expect_null(trust_host_of(t, other_key));
    trust_free(t);
}

#define OTHER "0000000000000000000000000000000000000000"

Test(trust, a_host_carries_the_nodes_that_the_list_names_there)
{
    write_list("a %s 1,7-9\nb " OTHER " 2\n", public_key);
    struct trust *t = opened();
    static const int32_t of_a[] = {1, 7, 8, 9}, of_none[] = {0, 3, 6, 10, -1, INT32_MAX};

    for (size_t i = 0; i < COUNTOF(of_a); i++) {
        cr_expect(trust_carries(t, "a", of_a[i]) && !trust_carries(t, "b", of_a[i]), "%d", of_a[i]);
        cr_expect_str_eq(trust_host_with(t, of_a[i]), "a");
    }
    cr_expect(trust_carries(t, "b", 2) && !trust_carries(t, "a", 2));
    for (size_t i = 0; i < COUNTOF(of_none); i++)
        cr_expect(!trust_carries(t, "a", of_none[i]) && !trust_carries(t, "b", of_none[i]), "%d", of_none[i]);
    cr_expect(!trust_carries(t, "c", 1), "who is not on the list");
    cr_expect_null(trust_host_with(t, 3));
    cr_expect_null(trust_host_without_nodes(t));
    trust_free(t);
}

Test(trust, a_host_without_nodes_carries_what_no_other_does)
{
    write_list("a %s\nb " OTHER " 2\n", public_key);
    struct trust *t = opened();

    cr_expect(trust_carries(t, "a", 1) && trust_carries(t, "a", 3));
    cr_expect(!trust_carries(t, "a", 2) && !trust_carries(t, "b", 1));
    cr_expect_str_eq(trust_host_without_nodes(t), "a");
    trust_free(t);
    write_list("a %s\nb " OTHER "\n", public_key); /* as the release before has it */
    t = opened();
    cr_expect(trust_carries(t, "a", 1) && trust_carries(t, "b", 1) && !trust_carries(t, "c", 1));
    trust_free(t);
}

/* While it changes its key, or has two addresses; in any order, and over a line between. */
Test(trust, lines_of_one_name_or_key_are_one_host)
{
    char text[512];

    snprintf(text, sizeof text, "a %s\nb %s 2\nc " OTHER " 3\na %s 1\n", public_key, other_key, other_key);
    write_file(list_path, text);
    struct trust *t = opened();
    cr_expect(trust_carries(t, "a", 1) && trust_carries(t, "a", 2) && trust_carries(t, "b", 1));
    cr_expect(!trust_carries(t, "a", 3) && !trust_carries(t, "c", 1));
    cr_expect(trust_is_same_host(t, "a", "b") && !trust_is_same_host(t, "a", "c"));
    cr_expect(!trust_is_same_host(t, "d", "d"), "who is not on the list");
    trust_free(t);
}

Test(trust, a_list_that_has_changed_is_read_again_and_a_bad_one_is_not_taken)
{
    char *error = NULL;
    write_list("a %s\n", public_key);
    struct trust *t = opened();

    cr_expect_eq(trust_refresh(t, &error), 0);
    write_list("a %s\nb 0000000000000000000000000000000000000000\n", other_key);
    cr_expect_eq(trust_refresh(t, &error), 0);
    cr_expect_str_eq(trust_key_of(t, "a"), other_key);
    cr_expect_null(trust_host_of(t, public_key));
    write_list("a %s\nnonsense\n", public_key);
    cr_expect_eq(trust_refresh(t, &error), -EBADMSG);
    cr_expect(strstr(error, "list:2"), "%s", error);
    free(TAKE_PTR(error));
    cr_expect_str_eq(trust_key_of(t, "a"), other_key, "the former list stays");
    cr_expect_eq(trust_refresh(t, &error), 0, "said once");
    cr_assert_eq(unlink(list_path), 0);
    cr_expect_eq(trust_refresh(t, &error), -ENOENT);
    free(TAKE_PTR(error));
    cr_expect_eq(trust_refresh(t, &error), 0, "said once");
    cr_expect_str_eq(trust_key_of(t, "a"), other_key);
    trust_free(t);
}

Test(trust, what_is_no_key_is_refused)
{
    write_list("a %s\n", public_key);
    static const char *const wrong[] = {"",          "\n",
                                        "short",     "00000000000000000000000000000000000000000",
                                        "two words", "00000000000000000000000000000000000000\"0"};
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        write_file(key_path, wrong[i]);
        is_refused(-EBADMSG, "is no key");
    }
    cr_assert_eq(unlink(key_path), 0);
    is_refused(-ENOENT, key_path);
}

Test(trust, a_key_that_others_can_read_is_refused)
{
    write_list("a %s\n", public_key);
    cr_assert_eq(chmod(key_path, 0640), 0);
    is_refused(-EPERM, "chmod 600");
}

Test(trust, a_list_that_everybody_can_write_is_refused)
{
    char *error = NULL;
    write_list("a %s\n", public_key);
    struct trust *t = opened();

    write_list("a %s\nb 0000000000000000000000000000000000000000\n", public_key);
    cr_assert_eq(chmod(list_path, 0666), 0);
    is_refused(-EPERM, "written by everybody");
    cr_expect_eq(trust_refresh(t, &error), -EPERM);
    free(TAKE_PTR(error));
    cr_expect_null(trust_key_of(t, "b"), "the former list stays");
    cr_assert_eq(chmod(list_path, 0664), 0);
    cr_expect_eq(trust_refresh(t, &error), 0);
    cr_expect_not_null(trust_key_of(t, "b"), "a new mode is a change, too");
    trust_free(t);
}

Test(trust, what_is_no_list_is_refused)
{
    static const char *const wrong[] = {
        "host",       "host short",  "host %s more", "%s",          "host %s 1 2",        "host %s ,", "host %s 1,",
        "host %s -1", "host %s 2-1", "host %s 1-",   "host %s 1;2", "host %s 2147483648", "host %s +1"};
    char *large = xcalloc(1, TRUST_FILE_BYTES_MAX + 2);

    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        write_list(wrong[i], public_key);
        is_refused(-EBADMSG, "list:1");
    }
    memset(large, '\n', TRUST_FILE_BYTES_MAX + 1);
    write_file(list_path, large);
    is_refused(-EFBIG, list_path);
    memset(large, 0, TRUST_FILE_BYTES_MAX + 1);
    for (size_t i = 0; i <= TRUST_HOSTS_MAX; i++)
        snprintf(large + 43 * i, 44, "h %s\n", public_key);
    write_file(list_path, large);
    is_refused(-EBADMSG, "list:1025");
    free(large);
}

Test(trust, a_key_never_takes_the_place_of_another)
{
    char *error = NULL, again[TRUST_KEY_CHARS + 1];
    struct stat st;

    cr_expect_eq(trust_make_key(key_path, again, &error), -EEXIST);
    cr_expect(strstr(error, "is there already"), "%s", error);
    free(error);
    cr_assert_eq(stat(key_path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
}
