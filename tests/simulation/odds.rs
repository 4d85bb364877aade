//! Promises that everything a simulated story depends on is drawn from its seed. Must never
//! hold state: the same seed tells the same story.

use std::fmt::Write;
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use tapwave_core::clock::later;
use tapwave_ledger::{self as ledger, Existing, RunOptions};
use tapwave_simulator::options::{
    Act, Call, Chance, CodeStyle, Fault, Faults, Intervention, Latency, Limit, Replication,
    RetryAfter, SecondPost, Throttle,
};
use tapwave_simulator::{self as rehearsal, Tenant};

/// The lifetime that the portal's passes get: no row asks for it, so that nobody's pass looks
/// like another's.
pub(crate) const ELSEWHERE_MINUTES: u32 = 45;
/// The longest that a replica is behind.
const FARTHEST_BEHIND: Duration = Duration::from_mins(4);
/// The longest round trip.
const SLOWEST: Duration = Duration::from_secs(2);

/// What one story is about.
pub(crate) struct Odds {
    pub(crate) seed: u64,
    pub(crate) upns: Vec<String>,
    pub(crate) wave: String,
    pub(crate) options: RunOptions,
    pub(crate) settle_after: Duration,
    pub(crate) tenant: rehearsal::Options,
    /// A refused token can be had anew.
    pub(crate) renews: bool,
    /// Most sessions in which things go wrong.
    pub(crate) troubled_sessions: u32,
    /// The longest time between two things that other people do; none do anything if zero.
    pub(crate) bustle: Duration,
    pub(crate) jumps: bool,
    pub(crate) cleans_up: CleansUp,
    /// Most cleanups in which things go wrong.
    pub(crate) troubled_cleanups: u32,
    /// What goes wrong there.
    pub(crate) cleaning: Faults,
}

/// When a run is cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CleansUp {
    Never,
    WhenDone,
    /// As the troubled sessions left it.
    AsItIs,
}

/// How a session ends, if not by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Itself,
    KilledAfter(Duration),
    KilledAtPoll(u64),
    DrainedAfter(Duration),
    DiskBreaksAt(u64),
    DiskFullAt(u64),
}

impl End {
    /// What the disk does meanwhile.
    pub(crate) fn of_the_disk(self) -> ledger::Failpoint {
        match self {
            Self::DiskBreaksAt(nth) => ledger::Failpoint::broken_at(nth),
            Self::DiskFullAt(nth) => ledger::Failpoint::full_at(nth),
            _ => ledger::Failpoint::default(),
        }
    }
}

impl Odds {
    pub(crate) fn draw(seed: u64, epoch: Timestamp) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rows = rng.usize(1..=8);
        let upns: Vec<String> = (0..rows).map(|n| format!("person{n}@contoso.example")).collect();
        let settle_after =
            Duration::from_secs(*rng.choice([60, 300, 300, 900].iter()).unwrap_or(&300));
        let wave = wave(&mut rng, &upns, epoch);
        let options = RunOptions {
            lifetime_minutes: rng.bool().then(|| rng.u32(60..=480)).or(Some(60)),
            start: (rng.u8(..8) == 0).then(|| later(epoch, Duration::from_secs(rng.u64(1..3_000)))),
            one_time: *rng.choice([None, Some(true), Some(false)].iter()).unwrap_or(&None),
            existing: *rng
                .choice([Existing::Fail, Existing::Skip, Existing::Replace].iter())
                .unwrap_or(&Existing::Fail),
            groups: Vec::new(),
            skip_ineligible: true,
            fence_seconds: settle_after.as_secs(),
            ..RunOptions::default()
        };
        let busy = rng.u8(..3) > 0;
        Self {
            seed,
            tenant: tenant(seed, &mut rng, settle_after),
            upns,
            wave,
            options,
            settle_after,
            renews: rng.bool(),
            troubled_sessions: rng.u32(1..=5),
            bustle: if busy { Duration::from_secs(rng.u64(20..600)) } else { Duration::ZERO },
            jumps: rng.u8(..3) == 0,
            cleans_up: match (rng.bool(), rng.u8(..4)) {
                (_, 0) => CleansUp::AsItIs,
                (true, _) => CleansUp::WhenDone,
                (false, _) => CleansUp::Never,
            },
            troubled_cleanups: rng.u32(0..=4),
            cleaning: cleaning(&mut rng, settle_after),
        }
    }

    /// The people of the wave in a tenant of these options.
    pub(crate) fn open(&self) -> Tenant {
        let mut tenant = Tenant::for_wave(self.upns.iter().cloned(), self.seed);
        *tenant.options_mut() = self.tenant.clone();
        tenant.policy_mut().minimum_lifetime = 10;
        tenant.policy_mut().default_lifetime = ELSEWHERE_MINUTES;
        tenant
    }

    /// How the next troubled session ends.
    pub(crate) fn end(&self, rng: &mut Rng) -> End {
        let moment = |rng: &mut Rng| match rng.u8(..3) {
            0 => Duration::from_millis(rng.u64(..3_000)),
            1 => Duration::from_secs(rng.u64(..120)),
            _ => Duration::from_secs(rng.u64(..2 * self.settle_after.as_secs())),
        };
        match rng.u8(..8) {
            0 => End::Itself,
            1 | 2 => End::KilledAfter(moment(rng)),
            3 | 4 => End::KilledAtPoll(rng.u64(1..200)),
            5 => End::DrainedAfter(moment(rng)),
            6 => End::DiskBreaksAt(rng.u64(1..30)),
            _ => End::DiskFullAt(rng.u64(1..30)),
        }
    }
}

fn wave(rng: &mut Rng, upns: &[String], epoch: Timestamp) -> String {
    let mut wave = "userPrincipalName,startDateTime,lifetimeInMinutes,isUsableOnce\n".to_owned();
    for upn in upns {
        let start = match rng.u8(..4) {
            0 => later(epoch, Duration::from_secs(rng.u64(1..120))).to_string(),
            1 => later(epoch, Duration::from_secs(rng.u64(1..20_000))).to_string(),
            _ => String::new(),
        };
        let lifetime = if rng.bool() { rng.u32(60..=480).to_string() } else { String::new() };
        let once = rng.choice(["", "true", "false"].iter()).unwrap_or(&"");
        writeln!(wave, "{upn},{start},{lifetime},{once}").expect("a string takes everything");
    }
    wave
}

fn tenant(seed: u64, rng: &mut Rng, settle_after: Duration) -> rehearsal::Options {
    let mut options = rehearsal::Options::seeded(seed);
    options.second_post = if rng.bool() { SecondPost::Replaces } else { SecondPost::Rejected };
    options.code_style = if rng.bool() { CodeStyle::Plain } else { CodeStyle::Nasty };
    options.latency = Latency {
        least: Duration::from_millis(rng.u64(..200)),
        most: Duration::from_millis(rng.u64(200..2_000)).min(SLOWEST),
    };
    options.omit_is_usable = rng.bool();
    options.clock_offset = SignedDuration::from_secs(match rng.u8(..3) {
        0 => 0,
        1 => rng.i64(-90..=90),
        _ => rng.i64(-7_200..=7_200),
    });
    options.throttles.pass_writes = throttle(rng);
    options.throttles.pass_reads = throttle(rng);
    options.faults = faults(rng, settle_after);
    mislead(&mut options, &mut Rng::with_seed(!seed), settle_after);
    options
}

/// Replicas that are behind, gateways that repeat, and other people who act on our passes. Its
/// dice are its own, so that the rest of a seed's story is the same without it.
fn mislead(options: &mut rehearsal::Options, rng: &mut Rng, settle_after: Duration) {
    // What is behind for longer than the settling time is beyond what anybody can promise.
    let farthest = FARTHEST_BEHIND.min(settle_after.mul_f64(0.8));
    let lag = |rng: &mut Rng| {
        let most = farthest.mul_f64(rng.f64());
        match rng.u8(..4) {
            0 | 1 => Latency::default(),
            2 => Latency::of(most),
            _ => Latency::up_to(most),
        }
    };
    options.replication = Replication {
        unlisted_after_create: lag(rng),
        listed_after_end: lag(rng),
        unknown_after_create: lag(rng),
        rejects_after_end: lag(rng),
    };
    for call in [Call::Look, Call::Remove] {
        let fault = match rng.u8(..8) {
            0 => Fault::UserUnknown,
            1 if call == Call::Remove => Fault::MethodUnknown,
            1 => Fault::Unlisted,
            2 if call == Call::Look => Fault::Undated,
            3 if call == Call::Look => Fault::EmptyPage,
            _ => continue,
        };
        let chance = Chance::new(call, 1.0, fault).lasting(farthest.mul_f64(rng.f64()));
        options.faults.chances.push(chance);
    }
    let fault = match rng.u8(..4) {
        // One that comes after the second look is beyond it.
        0 => Some(Fault::Twice { by: Duration::ZERO }),
        1 => Some(Fault::OtherId { deletable: rng.bool() }),
        _ => None,
    };
    if rng.u8(..3) == 0 {
        let ahead = if rng.bool() { 7_200 } else { -7_200 };
        let faults = std::mem::take(&mut options.faults);
        options.faults = faults.at(Call::Batch, rng.u64(1..20), Fault::Dated { ahead });
    }
    let odds = rng.f64() * 0.3;
    options.faults.chances.extend(fault.map(|fault| Chance::new(Call::Issue, odds, fault)));
    if rng.u8(..3) == 0 {
        options.interventions.push(Intervention {
            users: Vec::new(),
            probability: rng.f64() * 0.5,
            after: Duration::from_secs(rng.u64(..600)),
            act: [Act::Replace, Act::Delete, Act::Disable][rng.usize(..3)],
        });
    }
}

fn throttle(rng: &mut Rng) -> Throttle {
    let per = Duration::from_secs(rng.u64(1..=10));
    let limit = match rng.u8(..5) {
        0 => Limit::Bucket { rate: 0.2 + rng.f64() * 5.0, burst: 1.0 + rng.f64() * 5.0 },
        1 => Limit::Fixed { units: f64::from(rng.u8(1..6)), per },
        2 => Limit::Sliding { units: f64::from(rng.u8(1..6)), per },
        _ => Limit::None,
    };
    let told = [RetryAfter::Seconds, RetryAfter::Fraction, RetryAfter::Date, RetryAfter::Absent];
    Throttle {
        retry_after: *rng.choice(told.iter()).unwrap_or(&RetryAfter::Seconds),
        refused_are_free: rng.bool(),
        ..Throttle::of(limit)
    }
}

fn faults(rng: &mut Rng, settle_after: Duration) -> Faults {
    let mut faults = Faults::default();
    let worst = [0.0, 0.1, 0.25][rng.usize(..3)];
    for _ in 0..rng.u8(..6) {
        let odds = rng.f64() * worst;
        faults = faults.with(Call::Issue, odds, fault(rng, settle_after));
    }
    for call in [Call::Look, Call::Remove, Call::Batch, Call::Users, Call::ReadPolicy] {
        if rng.u8(..3) == 0 {
            let odds = rng.f64() * worst / 2.0;
            faults = faults.with(call, odds, fault(rng, settle_after));
        }
    }
    faults
}

/// Faults of the calls that a cleanup makes, its DELETEs above all: their answers are lost
/// before and after they took effect, they execute late, they are refused and thrown back.
fn cleaning(rng: &mut Rng, settle_after: Duration) -> Faults {
    let mut faults = Faults::default();
    for call in [Call::Remove, Call::Remove, Call::Look, Call::Look, Call::Batch, Call::ReadPolicy]
    {
        if rng.u8(..3) > 0 {
            faults = faults.with(call, rng.f64() * 0.4, fault(rng, settle_after));
        }
    }
    faults
}

fn fault(rng: &mut Rng, settle_after: Duration) -> Fault {
    let retry_after = match rng.u8(..3) {
        0 => None,
        1 => Some(rng.u8(..60).to_string()),
        _ => Some(format!("{:.2}", rng.f64() * 5.0)),
    };
    match rng.u8(..12) {
        0 => Fault::Unreachable,
        1 => Fault::LostBefore,
        2 => Fault::LostAfter,
        3 => Fault::Truncated,
        4 => Fault::Garbled,
        // What executes after the settling time is beyond what anybody can promise.
        5 | 6 => Fault::Late {
            by: Duration::from_secs(rng.u64(..=settle_after.saturating_sub(SLOWEST * 2).as_secs())),
        },
        7 | 8 => Fault::Failing {
            status: [500, 502, 503, 504][rng.usize(..4)],
            effect: rng.bool(),
            retry_after,
        },
        9 => Fault::Throttled { retry_after },
        10 => Fault::TokenExpired,
        _ => Fault::UserUnknown,
    }
}
