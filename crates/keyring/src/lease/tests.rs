//! The state machine against its rules, for any sequence of answers and times.

use proptest::prelude::*;

use super::*;
use crate::RootKeyId;

fn denied(denial: Denial) -> KeyServiceError {
    KeyServiceError::Denied {
        root: RootKeyId::platform_file(),
        denial,
    }
}

fn unavailable(outage: Outage) -> KeyServiceError {
    KeyServiceError::Unavailable {
        root: RootKeyId::platform_file(),
        outage,
    }
}

fn active(grace_ms: u64, now_ms: u64) -> LeaseMachine {
    let mut machine = LeaseMachine::new(LeasePolicy {
        grace_ms,
        ..LeasePolicy::default()
    });
    assert_eq!(machine.on_answer(now_ms, Ok(())), Transition::Unlocked);
    machine
}

#[test]
fn nothing_is_served_before_the_first_yes() {
    let mut machine = LeaseMachine::new(LeasePolicy::default());
    assert_eq!(
        machine.state(),
        LeaseState::Locked {
            why: LockReason::NotYetOpened
        }
    );
    assert_eq!(
        machine.on_answer(0, Err(&unavailable(Outage::Timeout))),
        Transition::Unchanged
    );
    assert_eq!(machine.on_time(1_000_000), Transition::Unchanged);
    assert!(!machine.may_serve());
    assert_eq!(machine.on_answer(1_000_000, Ok(())), Transition::Unlocked);
    assert_eq!(machine.state(), LeaseState::Active);
}

#[test]
fn a_denial_locks_at_once_and_a_yes_unlocks() {
    let mut machine = active(60_000, 0);
    assert_eq!(
        machine.on_answer(5_000, Err(&denied(Denial::Disabled))),
        Transition::Locked
    );
    assert_eq!(
        machine.state(),
        LeaseState::Locked {
            why: LockReason::Denied(Denial::Disabled)
        }
    );
    // Told again, for another reason: still locked, and the newest reason is shown.
    assert_eq!(
        machine.on_answer(6_000, Err(&denied(Denial::PendingDeletion))),
        Transition::Unchanged
    );
    assert_eq!(
        machine.state(),
        LeaseState::Locked {
            why: LockReason::Denied(Denial::PendingDeletion)
        }
    );
    // An outage does not take a denial back.
    assert_eq!(
        machine.on_answer(7_000, Err(&unavailable(Outage::Throttled))),
        Transition::Unchanged
    );
    assert_eq!(
        machine.state(),
        LeaseState::Locked {
            why: LockReason::Denied(Denial::PendingDeletion)
        }
    );
    assert_eq!(machine.on_answer(8_000, Ok(())), Transition::Unlocked);
}

#[test]
fn a_denial_locks_during_an_outage_too() {
    let mut machine = active(60_000, 0);
    assert_eq!(
        machine.on_answer(5_000, Err(&unavailable(Outage::Failed))),
        Transition::BecameSuspect
    );
    assert_eq!(
        machine.on_answer(6_000, Err(&denied(Denial::AccessDenied))),
        Transition::Locked
    );
}

#[test]
fn an_outage_is_served_through_for_the_grace_period_and_not_a_millisecond_longer() {
    let mut machine = active(60_000, 0);
    assert_eq!(
        machine.on_answer(5_000, Err(&unavailable(Outage::Timeout))),
        Transition::BecameSuspect
    );
    assert_eq!(machine.deadline_ms(), Some(65_000));
    // More outages do not prolong it.
    assert_eq!(
        machine.on_answer(64_000, Err(&unavailable(Outage::Throttled))),
        Transition::Unchanged
    );
    assert_eq!(machine.on_time(64_999), Transition::Unchanged);
    assert!(machine.may_serve());
    assert_eq!(machine.on_time(65_000), Transition::Locked);
    assert_eq!(
        machine.state(),
        LeaseState::Locked {
            why: LockReason::GraceExpired(Outage::Throttled)
        }
    );
    assert_eq!(machine.deadline_ms(), None);
}

#[test]
fn an_outage_that_ends_in_time_is_forgotten() {
    let mut machine = active(60_000, 0);
    for round in 0..100 {
        let now = round * 50_000;
        let _started = machine.on_answer(now, Err(&unavailable(Outage::Timeout)));
        assert_eq!(machine.state(), LeaseState::Suspect { since_ms: now });
        assert_eq!(machine.on_answer(now + 40_000, Ok(())), Transition::Recovered);
        assert_eq!(machine.state(), LeaseState::Active);
    }
}

#[test]
fn without_grace_the_first_outage_locks() {
    let mut machine = active(0, 0);
    assert_eq!(
        machine.on_answer(5_000, Err(&unavailable(Outage::Timeout))),
        Transition::Locked
    );
    assert_eq!(
        machine.state(),
        LeaseState::Locked {
            why: LockReason::GraceExpired(Outage::Timeout)
        }
    );
}

#[test]
fn a_key_service_that_is_no_longer_configured_is_an_outage() {
    let mut machine = active(60_000, 0);
    let gone = KeyServiceError::Unsupported {
        root: RootKeyId::platform_file(),
        reason: "removed".into(),
    };
    assert_eq!(machine.on_answer(5_000, Err(&gone)), Transition::BecameSuspect);
    assert_eq!(machine.on_time(65_000), Transition::Locked);
}

/// Probes that hang for ever must not keep the data open.
#[test]
fn silence_is_an_outage() {
    let mut machine = active(60_000, 1_000);
    let silence_max_ms = machine.policy().silence_max_ms();
    assert_eq!(silence_max_ms, 11_000);
    assert_eq!(machine.on_time(11_999), Transition::Unchanged);
    assert_eq!(machine.on_time(12_000), Transition::BecameSuspect);
    assert_eq!(machine.on_time(71_999), Transition::Unchanged);
    assert_eq!(machine.on_time(72_000), Transition::Locked);
    // The same if nobody looked in between.
    assert_eq!(active(60_000, 1_000).on_time(72_000), Transition::Locked);
}

#[test]
fn a_clock_that_runs_backwards_stands_still() {
    let mut machine = active(10_000, 100_000);
    assert_eq!(
        machine.on_answer(105_000, Err(&unavailable(Outage::Timeout))),
        Transition::BecameSuspect
    );
    assert_eq!(machine.on_time(0), Transition::Unchanged);
    assert_eq!(machine.state(), LeaseState::Suspect { since_ms: 105_000 });
    assert_eq!(
        machine.on_answer(50_000, Err(&unavailable(Outage::Timeout))),
        Transition::Unchanged
    );
    assert_eq!(machine.on_time(115_000), Transition::Locked);
}

#[test]
fn policies_are_checked() {
    let good = LeasePolicy::default();
    assert_eq!(good.checked(), Ok(good));
    for probe_interval_ms in [1_000, 600_000] {
        assert!(
            LeasePolicy {
                probe_interval_ms,
                ..good
            }
            .checked()
            .is_ok()
        );
    }
    for probe_interval_ms in [0, 999, 600_001] {
        let error = LeasePolicy {
            probe_interval_ms,
            ..good
        }
        .checked()
        .unwrap_err();
        assert_eq!(error, LeasePolicyError::ProbeInterval { probe_interval_ms });
    }
    for grace_ms in [0, LeasePolicy::GRACE_MS_MAX] {
        assert!(LeasePolicy { grace_ms, ..good }.checked().is_ok());
    }
    assert!(
        LeasePolicy {
            grace_ms: LeasePolicy::GRACE_MS_MAX + 1,
            ..good
        }
        .checked()
        .is_err()
    );
    for jitter in [-0.1, 0.6, f64::NAN, f64::INFINITY] {
        assert!(LeasePolicy { jitter, ..good }.checked().is_err());
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Yes,
    No,
    Outage,
    Time,
}

fn events() -> impl Strategy<Value = Vec<(Event, i64)>> {
    let event = prop_oneof![
        Just(Event::Yes),
        Just(Event::No),
        Just(Event::Outage),
        Just(Event::Time)
    ];
    // Mostly forwards, at times backwards.
    proptest::collection::vec((event, -5_000_i64..20_000), 0..200)
}

proptest! {
    /// For any history: nothing is served after a no until the next yes, nor later than the last yes plus silence plus
    /// grace; and transitions tell exactly how serving changes.
    #[test]
    fn no_history_serves_what_it_must_not(events in events(), grace_ms in prop_oneof![Just(0), 0_u64..90_000]) {
        let policy = LeasePolicy { grace_ms, ..LeasePolicy::default() };
        let mut machine = LeaseMachine::new(policy);
        let (mut clock, mut latest) = (0_i64, 0_u64);
        let mut last_yes = None;
        // When the outage that goes on now was first told.
        let mut outage_since = None;
        for (event, step) in events {
            clock = (clock + step).max(0);
            let now = clock.unsigned_abs();
            latest = latest.max(now);
            let served = machine.may_serve();
            let transition = match event {
                Event::Yes => {
                    (last_yes, outage_since) = (Some(latest), None);
                    machine.on_answer(now, Ok(()))
                }
                Event::No => {
                    (last_yes, outage_since) = (None, None);
                    machine.on_answer(now, Err(&denied(Denial::Disabled)))
                }
                Event::Outage => {
                    outage_since = outage_since.or(Some(latest));
                    machine.on_answer(now, Err(&unavailable(Outage::Timeout)))
                }
                Event::Time => machine.on_time(now),
            };
            let serves = machine.may_serve();
            match transition {
                Transition::Locked => prop_assert!(served && !serves),
                Transition::Unlocked => prop_assert!(!served && serves),
                Transition::BecameSuspect | Transition::Recovered => prop_assert!(served && serves),
                Transition::Unchanged => prop_assert_eq!(served, serves),
            }
            if let Event::Yes = event {
                prop_assert_eq!(machine.state(), LeaseState::Active);
            }
            if serves {
                prop_assert!(last_yes.is_some(), "served without a yes");
                // An outage answer checks the grace period on the spot, and so does time.
                if let (Some(since), Event::Outage | Event::Time) = (outage_since, event) {
                    prop_assert!(latest - since < grace_ms, "served beyond the grace period");
                }
                if let Event::Outage | Event::Time = event {
                    prop_assert!(latest - last_yes.unwrap_or(0) < policy.silence_max_ms() + grace_ms);
                }
                prop_assert!(machine.deadline_ms().is_some());
            }
        }
    }

    /// Waking exactly at the deadline, and only then, locks what has to be locked.
    #[test]
    fn the_deadline_is_when_the_state_changes(grace_ms in 0_u64..90_000, at in 0_u64..1_000_000) {
        let mut machine = active(grace_ms, at);
        let mut wakes = 0;
        while let Some(deadline) = machine.deadline_ms() {
            if deadline > at {
                prop_assert_eq!(machine.on_time(deadline - 1), Transition::Unchanged);
            }
            prop_assert_ne!(machine.on_time(deadline), Transition::Unchanged);
            wakes += 1;
            prop_assert!(wakes <= 2);
        }
        prop_assert!(!machine.may_serve());
    }

    #[test]
    fn the_next_probe_is_within_the_jitter(
        probe_interval_ms in 1_000_u64..=600_000,
        jitter in 0.0..=0.5,
        random01 in prop_oneof![0.0..=1.0, Just(f64::NAN), Just(-1.0), Just(2.0)],
    ) {
        let machine = LeaseMachine::new(LeasePolicy { probe_interval_ms, jitter, grace_ms: 0 });
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (interval, next) = (probe_interval_ms as f64, machine.next_probe_ms(random01) as f64);
        prop_assert!(next >= interval * (1.0 - jitter) - 1.0 && next <= interval * (1.0 + jitter) + 1.0);
    }
}

#[test]
fn an_answer_to_an_earlier_question_never_overrides_a_later_one() {
    let mut machine = active(60_000, 0);
    let (early, late) = (machine.ask(), machine.ask());
    assert_eq!(
        machine.on_answer_to(late, 5_000, Err(&denied(Denial::Disabled))),
        Transition::Locked
    );
    assert_eq!(machine.on_answer_to(early, 6_000, Ok(())), Transition::Unchanged);
    assert!(!machine.may_serve(), "a stale yes unlocked");
    assert_eq!(machine.on_answer(7_000, Ok(())), Transition::Unlocked);
    let (early, late) = (machine.ask(), machine.ask());
    assert_eq!(machine.on_answer_to(late, 8_000, Ok(())), Transition::Unchanged);
    for stale in [denied(Denial::Disabled), unavailable(Outage::Timeout)] {
        assert_eq!(machine.on_answer_to(early, 9_000, Err(&stale)), Transition::Unchanged);
    }
    assert_eq!(machine.state(), LeaseState::Active);
    // A stale answer moves the clock and nothing else: the silence since the last yes is what counts.
    assert_eq!(machine.deadline_ms(), Some(8_000 + machine.policy().silence_max_ms()));
}

#[test]
fn probes_of_a_silent_key_service_back_off_up_to_a_limit_and_its_answer_ends_that() {
    for (interval_ms, expected) in [
        (1_000, [1_000, 2_000, 4_000, 4_000]),
        (5_000, [5_000, 10_000, 20_000, 20_000]),
        (10_000, [10_000, 20_000, 30_000, 30_000]),
        (60_000, [60_000, 60_000, 60_000, 60_000]),
    ] {
        let policy = LeasePolicy {
            probe_interval_ms: interval_ms,
            ..LeasePolicy::default()
        };
        for answer in [Ok(()), Err(denied(Denial::Disabled))] {
            let mut machine = LeaseMachine::new(policy);
            for (outages, expected) in (1..).zip(expected) {
                let outage = if outages % 2 == 0 {
                    Outage::Throttled
                } else {
                    Outage::Timeout
                };
                let _ = machine.on_answer(0, Err(&unavailable(outage)));
                assert_eq!(
                    machine.next_probe_ms(0.5),
                    expected,
                    "after {outages} outages at {interval_ms} ms"
                );
            }
            for _ in 0..100 {
                let _ = machine.on_answer(0, Err(&unavailable(Outage::Failed)));
            }
            assert_eq!(machine.next_probe_ms(0.5), expected[3]);
            let _ = machine.on_answer(0, answer.as_ref().map(|&()| ()));
            assert_eq!(machine.next_probe_ms(0.5), interval_ms, "a fast return after an answer");
        }
    }
}

#[test]
fn every_lock_is_counted() {
    let mut machine = active(0, 0);
    assert_eq!(machine.locks(), 0);
    let _ = machine.on_answer(1, Err(&denied(Denial::Disabled)));
    let _ = machine.on_answer(2, Err(&denied(Denial::Disabled)));
    assert_eq!(machine.locks(), 2);
    let _ = machine.on_answer(3, Ok(()));
    let _ = machine.on_answer(4, Err(&unavailable(Outage::Timeout)));
    assert_eq!(machine.locks(), 3);
}
