/* test_presence.c - what counts as evidence that a life is gone, and what does not. */
#include <criterion/criterion.h>

#include "libs/controller/presence.h"

enum { STORAGE = 2, GROUP = 4, SILENCE_MS = 2000 };

static struct presence *w;
static uint64_t now;
static const struct presence_life one = {STORAGE, 1, 11}, two = {STORAGE, 2, 21}, group = {GROUP, 1, 31};

static void open_it(void)
{
    now = 1000;
    w = presence_new(SILENCE_MS, now);
    presence_begin(w);
    presence_name(w, one);
    presence_name(w, two);
    presence_done(w);
}

static void close_it(void)
{
    w = presence_free(w);
}

TestSuite(presence, .init = open_it, .fini = close_it);

static bool same(struct presence_life a, struct presence_life b)
{
    return a.role == b.role && a.id == b.id && a.incarnation == b.incarnation;
}

static const struct presence_life nobody = {0};
static enum presence_why why; /* the life that was found gone last is gone */

/* Time passes in ticks; all that are asked answer, but for `silent`, who ends as `end`. The life that was found gone
 * last. */
static struct presence_life run(uint64_t ms, struct presence_life silent, enum presence_end end)
{
    struct presence_life life, gone = {0};
    for (uint64_t until = now + ms; now < until;) {
        now += PRESENCE_TICK_MS;
        presence_tick(w, now);
        while (presence_next_gone(w, &life, &why))
            gone = life;
        while (presence_next_ask(w, &life))
            presence_ended(w, life, same(life, silent) ? end : PRESENCE_ANSWERED);
    }
    return gone;
}

Test(presence, who_answers_is_there)
{
    cr_assert_eq(run(60000, nobody, PRESENCE_ANSWERED).role, 0);
}

Test(presence, silence_counts_from_the_last_sign)
{
    run(1000, nobody, PRESENCE_ANSWERED);
    cr_assert_eq(run(SILENCE_MS - 2 * PRESENCE_EVERY_MS, one, PRESENCE_UNANSWERED).role, 0);
    presence_heard(w, one); /* it speaks to us, though it does not answer */
    cr_assert_eq(run(SILENCE_MS - PRESENCE_TICK_MS, one, PRESENCE_UNANSWERED).role, 0);
    cr_assert(same(run(4 * PRESENCE_TICK_MS, one, PRESENCE_UNANSWERED), one));
    cr_assert_eq(why, PRESENCE_GONE_SILENT);
}

Test(presence, unreachable_twice_is_gone_and_told_once)
{
    run(1000, nobody, PRESENCE_ANSWERED);
    cr_assert(same(run(4 * PRESENCE_EVERY_MS, one, PRESENCE_UNREACHABLE), one));
    cr_assert_eq(why, PRESENCE_GONE_UNREACHABLE);
    cr_assert_eq(run(60000, one, PRESENCE_UNREACHABLE).role, 0);
}

/* To a controller that leads only later. */
Test(presence, who_is_gone_is_told_again_when_asked_for)
{
    struct presence_life life;
    run(1000, nobody, PRESENCE_ANSWERED);
    run(4 * PRESENCE_EVERY_MS, one, PRESENCE_UNREACHABLE);
    presence_tell_again(w);
    cr_assert(presence_next_gone(w, &life, &why) && same(life, one) && why == PRESENCE_GONE_UNREACHABLE);
    cr_assert_not(presence_next_gone(w, &life, &why));
    presence_heard(w, one);
    presence_tell_again(w);
    cr_assert_not(presence_next_gone(w, &life, &why));
}

/* A standstill ends the link, too: it is not for the link to say when that is a death. */
Test(presence, unreachable_after_a_silence_is_silence)
{
    run(1000, nobody, PRESENCE_ANSWERED);
    cr_assert_eq(run(SILENCE_MS - 500, one, PRESENCE_UNANSWERED).role, 0);
    cr_assert_eq(run(300, one, PRESENCE_UNREACHABLE).role, 0);
    cr_assert(same(run(500, one, PRESENCE_UNREACHABLE), one));
    cr_assert_eq(why, PRESENCE_GONE_SILENT);
}

static void ask_all(enum presence_end of_one)
{
    struct presence_life life;
    presence_hurry(w);
    while (presence_next_ask(w, &life))
        presence_ended(w, life, same(life, one) ? of_one : PRESENCE_ANSWERED);
}

Test(presence, unreachable_once_is_a_chance)
{
    struct presence_life life;
    ask_all(PRESENCE_ANSWERED);
    for (int i = 0; i < 10; i++) {
        ask_all(PRESENCE_UNREACHABLE);
        cr_assert_not(presence_next_gone(w, &life, &why));
        ask_all(PRESENCE_ANSWERED);
    }
}

/* I1: it may be of a release that cannot be asked, or behind a wall. */
Test(presence, who_never_answered_is_not_found_gone)
{
    cr_assert_eq(run(60000, one, PRESENCE_UNREACHABLE).role, 0);
    cr_assert_eq(run(60000, one, PRESENCE_UNANSWERED).role, 0);
}

Test(presence, who_is_not_asked_any_more_is_not_found_gone)
{
    run(1000, nobody, PRESENCE_ANSWERED);
    run(PRESENCE_EVERY_MS, one, PRESENCE_MUTE);
    cr_assert_eq(run(60000, one, PRESENCE_UNREACHABLE).role, 0);
    run(1000, nobody, PRESENCE_ANSWERED);
    cr_assert(same(run(2 * SILENCE_MS, one, PRESENCE_UNANSWERED), one));
}

/* I1: found gone, and it still speaks: it has to answer before it counts again. */
Test(presence, who_cannot_be_asked_does_not_come_and_go)
{
    run(1000, nobody, PRESENCE_ANSWERED);
    cr_assert(same(run(2 * SILENCE_MS, one, PRESENCE_UNANSWERED), one));
    for (int i = 0; i < 5; i++) {
        presence_heard(w, one);
        cr_assert_eq(run(2 * SILENCE_MS, one, PRESENCE_UNANSWERED).role, 0);
    }
    run(1000, nobody, PRESENCE_ANSWERED);
    cr_assert(same(run(2 * SILENCE_MS, one, PRESENCE_UNANSWERED), one));
}

/* I2: we were stopped for a minute; they had no time to answer. */
Test(presence, our_own_pause_is_nobodys_silence)
{
    struct presence_life life;
    run(1000, nobody, PRESENCE_ANSWERED);
    for (int i = 0; i < 5; i++) {
        now += 60000;
        presence_tick(w, now);
        cr_assert_not(presence_next_gone(w, &life, &why));
    }
}

/* I3: alone among the silent, it is us who are cut off. */
Test(presence, who_hears_nobody_finds_nobody_gone)
{
    struct presence_life life;
    run(1000, nobody, PRESENCE_ANSWERED);
    for (int i = 0; i < 1000; i++) {
        now += PRESENCE_TICK_MS;
        presence_tick(w, now);
        while (presence_next_ask(w, &life))
            presence_ended(w, life, i % 2 ? PRESENCE_UNREACHABLE : PRESENCE_UNANSWERED);
        cr_assert_not(presence_next_gone(w, &life, &why));
    }
    cr_assert(same(run(PRESENCE_EVERY_MS, one, PRESENCE_UNANSWERED), one)); /* two answers again */
}

Test(presence, a_next_life_is_another)
{
    static const struct presence_life next = {STORAGE, 1, 12};
    struct presence_life life;
    run(1000, nobody, PRESENCE_ANSWERED);
    presence_begin(w);
    presence_name(w, two);
    presence_name(w, next);
    presence_name(w, group);
    presence_done(w);
    cr_assert_eq(presence_count(w), 3);
    cr_assert_eq(run(60000, next, PRESENCE_UNREACHABLE).role, 0); /* it has never answered */
    presence_ended(w, one, PRESENCE_UNREACHABLE);                 /* of the life before */
    presence_ended(w, one, PRESENCE_UNREACHABLE);
    presence_heard(w, one);
    cr_assert_not(presence_next_gone(w, &life, &why));
}

Test(presence, one_ask_at_a_time)
{
    struct presence_life life;
    cr_assert(presence_next_ask(w, &life) && same(life, one));
    cr_assert(presence_next_ask(w, &life) && same(life, two));
    cr_assert_not(presence_next_ask(w, &life));
    presence_ended(w, two, PRESENCE_ANSWERED);
    cr_assert_not(presence_next_ask(w, &life));
    presence_hurry(w);
    cr_assert(presence_next_ask(w, &life) && same(life, two));
    cr_assert_not(presence_next_ask(w, &life));
}

/* Who is being asked already is asked again as soon as that has ended. */
Test(presence, news_waits_for_the_ask_under_way_alone)
{
    struct presence_life life;
    cr_assert(presence_next_ask(w, &life) && presence_next_ask(w, &life));
    presence_hurry(w);
    cr_assert_not(presence_next_ask(w, &life));
    presence_ended(w, two, PRESENCE_ANSWERED);
    cr_assert(presence_next_ask(w, &life) && same(life, two));
    presence_ended(w, two, PRESENCE_ANSWERED);
    cr_assert_not(presence_next_ask(w, &life), "once");
}

/* The way to it takes a second and a half, or it is that busy: each answer is a sign of life. */
Test(presence, a_late_answer_is_an_answer)
{
    enum { LATE_MS = 1500 };
    struct presence_life life;
    uint64_t asked_ms = 0;
    ask_all(PRESENCE_ANSWERED);
    for (uint64_t until = now + 60000; now < until;) {
        now += PRESENCE_TICK_MS;
        presence_tick(w, now);
        cr_assert_not(presence_next_gone(w, &life, &why));
        while (presence_next_ask(w, &life))
            if (same(life, one))
                asked_ms = now;
            else
                presence_ended(w, life, PRESENCE_ANSWERED);
        if (now == asked_ms + LATE_MS)
            presence_ended(w, one, PRESENCE_ANSWERED);
    }
}

/* No credit, or a link that is not up yet: somebody is there, who may be it. It answers in between. */
Test(presence, asks_that_did_not_leave_are_no_evidence_of_a_death)
{
    struct presence_life life;
    ask_all(PRESENCE_ANSWERED);
    for (int i = 0; i < 100; i++) {
        now += PRESENCE_TICK_MS;
        presence_tick(w, now);
        ask_all(PRESENCE_UNANSWERED);
        if (i % 30 == 29)
            ask_all(PRESENCE_ANSWERED);
        cr_assert_not(presence_next_gone(w, &life, &why));
    }
}
