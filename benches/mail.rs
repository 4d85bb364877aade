//! Promises the numbers of mail, measured on this machine: that issuing does not wait for it,
//! and that 2,000 passes reach their readers once, through a relay that does everything wrong
//! and through Postfix, with a program that is killed again and again. Must never be a test:
//! it takes minutes, and a busy machine is no defect.
//!
//!     cargo bench --bench mail               every case, a few minutes
//!     cargo bench --bench mail -- postfix    those whose name holds one of these words
//!
//! Judged by what relay and tenant took. Postfix needs root, and itself and Dovecot installed.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io::{Write, stdout};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mailed::{count_state, taken, wave};
use smtp::{Fault, Manner, Relay};
use support_office::Office;
use tapwave_simulator::options::Latency;

#[path = "../tests/support/certificates.rs"]
mod certificates;
#[path = "../tests/support/mailed.rs"]
mod mailed;
#[cfg(unix)]
#[path = "../tests/support/postfix.rs"]
mod postfix;
#[expect(dead_code, reason = "other tests ask for more of it")]
#[path = "../tests/support/server.rs"]
mod server;
#[expect(dead_code, reason = "tests use more of the same")]
#[path = "../tests/support/smtp.rs"]
mod smtp;
#[expect(dead_code, reason = "tests use more of the same")]
#[path = "../tests/support/office.rs"]
mod support_office;

type Failed = Box<dyn Error>;

/// Rows of the cases that count mails.
const ROWS: u64 = 2_000;
/// Rows of the cases that time issuing.
const TIMED: u64 = 2_000;
/// Pairs of runs that are timed; the best of each side counts.
const PAIRS: usize = 3;
/// Mails a minute, where the rate is not what is measured.
const FAST: u32 = 60_000;
/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_millis(2);

fn main() -> Result<(), Failed> {
    // cargo itself passes flags such as --bench.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen =
        |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        print("| case | measured | hold | |\n|---|---|---|---|\n")?;
        if chosen("issuing") {
            issuing().await?;
        }
        if chosen("waiting") {
            waiting().await?;
        }
        if chosen("faults") {
            faults().await?;
        }
        #[cfg(unix)]
        if chosen("postfix") {
            postfix().await?;
        }
        Ok(())
    })
}

/// A measured number under the one to hold.
fn line(case: &str, measured: f64, hold: f64) -> Result<(), Failed> {
    let verdict = if measured <= hold { "held" } else { "**over**" };
    print(&format!("| {case} | {measured:.3} | {hold:.2} | {verdict} |\n"))
}

/// Issuing with and without mail through slow relays, as a ratio. The slowest leaves most to
/// wait for, the quickest most to do meanwhile.
async fn issuing() -> Result<(), Failed> {
    let slow = [1_000, 50].map(Duration::from_millis);
    let (mut without, mut with) = (f64::MAX, slow.map(|_| f64::MAX));
    for _ in 0..PAIRS {
        without = without.min(span(None).await?);
        for (best, slow) in with.iter_mut().zip(slow) {
            *best = best.min(span(Some(slow)).await?);
        }
    }
    for (with, slow) in with.into_iter().zip(slow) {
        let case = format!(
            "issuing {} rows with mail and an identity, relay of {slow:?} a mail ({with:.2} s), \
             over issuing without ({without:.2} s)",
            thousands(TIMED)
        );
        line(&case, with / without, 1.05)?;
    }
    Ok(())
}

/// Seconds from the first pass to the last, by the tenant's clock, with mail through a relay
/// that takes so long for each, or without.
async fn span(relay_takes: Option<Duration>) -> Result<f64, Failed> {
    let office = Office::open(TIMED, &wave(TIMED)).await;
    office.tenant.with(|tenant, _| {
        tenant.options_mut().latency = Latency::of(Duration::from_millis(50));
    });
    let slow = relay_takes.unwrap_or_default();
    let relay = Relay::start(Manner { slow, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    let mut run = vec!["run", "wave.csv", "-r", &office.public_key, "--quiet"];
    if relay_takes.is_some() {
        run.extend(["--deliver", "-i", "key.txt"]);
    }
    let process = office.command(&run).spawn()?;
    until(|| passes(&office) == TIMED).await?;
    end(process)?;
    office.tenant.with(|tenant, _| {
        let (Some(first), Some(last)) = (tenant.log().first(), tenant.log().last()) else {
            return Err("no pass".into());
        };
        Ok(last.at.duration_since(first.at).as_secs_f64())
    })
}

/// Without an identity: how far issuing runs ahead of mail, in connections.
async fn waiting() -> Result<(), Failed> {
    const FEW: u64 = 100;
    let office = Office::open(FEW, &wave(FEW)).await;
    let slow = Duration::from_millis(50);
    let relay = Relay::start(Manner { slow, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    let run = ["run", "wave.csv", "-r", &office.public_key, "--deliver", "--quiet"];
    let mut process = office.command(&run).spawn()?;
    let mut ahead = 0;
    until(|| {
        // In this order, so that what comes between the two does not count as ahead.
        let passes = passes(&office);
        let mails = relay.seen().taken.len() as u64;
        ahead = ahead.max(passes.saturating_sub(mails));
        mails == FEW
    })
    .await?;
    process.wait()?;
    let case = "passes in memory that wait for mail, without an identity, over the connections";
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    line(case, ahead as f64 / 3.0, 2.0)
}

/// Everything that may go wrong with one mail, again and again.
fn every_fault() -> VecDeque<Fault> {
    let kinds = [
        Fault::Mail("451 4.3.0 later"),
        Fault::Rcpt("450 4.2.0 greylisted"),
        Fault::Data("452 4.3.1 full"),
        Fault::Dot("451 4.3.0 later"),
        Fault::Dot("550 5.7.1 spam"),
        Fault::Rcpt("550 5.1.1 nobody"),
        Fault::CutAtMail,
        Fault::CutAtData,
        Fault::CutInText,
        Fault::CutAfterDot,
        Fault::CutAfterAnswer,
    ];
    let mut faults: VecDeque<Fault> =
        kinds.iter().flat_map(|kind| [vec![*kind], vec![Fault::None; 10]].concat()).collect();
    let once = faults.clone();
    (0..14).for_each(|_| faults.extend(&once));
    // Asked for less, twice early on and twice in the middle; silence just before a kill.
    for (at, fault) in [
        (40, Fault::Mail("421 4.7.0 try later")),
        (41, Fault::Mail("450 4.7.1 Error: too much mail")),
        (480, Fault::SilentAfterDot),
        (900, Fault::Mail("421 4.7.0 try later")),
        (901, Fault::Rcpt("451 4.7.1 rate limit exceeded")),
        (1_490, Fault::SilentAfterDot),
    ] {
        faults[at] = fault;
    }
    faults
}

async fn faults() -> Result<(), Failed> {
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let slow = Duration::from_millis(5);
    let relay = Relay::start(Manner { faults: every_fault(), slow, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    let began = Instant::now();
    let mails = || relay.seen().taken.len();
    let key = office.public_key.clone();
    let run =
        ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt", "--settle-after", "1s", "-q"];
    killed_at(&office, &run, || mails() >= 500).await?;
    let resume = ["resume", "latest", "-i", "key.txt", "--quiet"];
    killed_at(&office, &resume, || mails() >= 1_000).await?;
    relay.change(|manner| manner.starttls = false);
    office.run(&resume).await.expect(7);
    relay.change(|manner| (manner.starttls, manner.secret) = (true, "other".to_owned()));
    office.run(&resume).await.expect(5);
    relay.change(|manner| "right".clone_into(&mut manner.secret));
    let quiet = mails();
    killed_at(&office, &resume, || mails() >= 1_500).await?;
    if quiet > 1_010 {
        return Err(format!("{quiet} mails, though the relay let nobody in").into());
    }
    office.run(&resume).await.expect(7);
    office.run(&["deliver", "latest", "-i", "key.txt", "--quiet"]).await.expect(7);
    let held = judge(&office, &taken(&relay)).await?;
    let doubled = taken(&relay).values().filter(|times| **times > 1).count();
    tell("every fault, 3 kills", doubled, held, began)?;
    office.run(&["deliver", "latest", "-i", "key.txt", "--resend-unsettled"]).await.expect(7);
    judge_again(&office, &relay, held).await
}

/// Every row's state against what arrived. How many mails are of unknown fate.
async fn judge(office: &Office, arrived: &BTreeMap<String, usize>) -> Result<usize, Failed> {
    let rows = office.rows().await;
    for row in &rows {
        let upn = row["userPrincipalName"].as_str().ok_or("no name")?;
        let n: String = upn.chars().filter(char::is_ascii_digit).collect();
        let of_reader = |(address, _): &(&String, &usize)| {
            let name = address.split('@').next().unwrap_or_default();
            name.trim_start_matches(|c: char| !c.is_ascii_digit()) == n
        };
        let times = arrived.iter().find(of_reader).map_or(0, |(_, times)| *times);
        let right = match row["state"].as_str() {
            Some("delivered") => times == 1,
            Some("mailing") => times <= 1,
            Some("sealed") => times == 0 && row["mail"]["outcome"] == "mail refused",
            _ => false,
        };
        if !right {
            return Err(format!("{times} mails for {row}").into());
        }
    }
    Ok(count_state(&rows, "mailing"))
}

/// After the held ones went out once more: nobody without a mail but those who were refused,
/// nobody with two but those who were held, and those byte for byte the same.
async fn judge_again(office: &Office, relay: &Relay, held: usize) -> Result<(), Failed> {
    let rows = office.rows().await;
    let refused = count_state(&rows, "sealed");
    let all = taken(relay);
    let lost = rows.len() - refused - all.len();
    let twice: Vec<&String> =
        all.iter().filter(|(_, times)| **times > 1).map(|(reader, _)| reader).collect();
    let seen = relay.seen();
    for reader in &twice {
        let address = format!("<{reader}>");
        let mut same = seen.taken.iter().filter(|mail| mail.to[0].contains(&address));
        let first = same.next().ok_or("none")?;
        if !same.all(|mail| mail.bytes == first.bytes) {
            return Err(format!("{reader} got two different mails").into());
        }
    }
    if twice.len() > held || count_state(&rows, "mailing") > 0 {
        return Err("more than what was held went out again".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    line(&format!("… lost, {refused} refused by the relay aside"), lost as f64, 0.0)
}

/// 2,000 mails through Postfix, which delivers them into a Maildir.
#[cfg(unix)]
async fn postfix() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    certificates::certify(folder.path(), false);
    let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    let Some(server) = postfix::Postfix::start(&certificate, &key, 0) else { return Ok(()) };
    let readers = (1..=ROWS).map(|n| format!("user{n}@contoso.example,ada+{n}@contoso.test\n"));
    let wave = format!("userPrincipalName,deliverTo\n{}", readers.collect::<String>());
    let office = Office::open(ROWS, &wave).await;
    office.mail_to_port(server.submission, &folder.path().join("ca.pem"), FAST);
    let began = Instant::now();
    let key = office.public_key.clone();
    let run =
        ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt", "--settle-after", "1s", "-q"];
    let resume = ["resume", "latest", "-i", "key.txt", "--quiet"];
    killed_at(&office, &run, || server.count() >= 400).await?;
    killed_at(&office, &resume, || server.count() >= 900).await?;
    killed_at(&office, &resume, || server.count() >= 1_400).await?;
    let ended = office.run(&resume).await;
    if ![Some(0), Some(7)].contains(&ended.code) {
        return Err(ended.err.into());
    }
    // Postfix still delivers what it took.
    until(|| server.is_at_rest()).await?;
    let arrived = server.readers();
    let held = judge(&office, &arrived).await?;
    let doubled = arrived.values().filter(|times| **times > 1).count();
    tell("Postfix, 3 kills", doubled, held, began)?;
    office.run(&["deliver", "latest", "-i", "key.txt", "--resend-unsettled"]).await.expect(0);
    until(|| server.is_at_rest()).await?;
    let again = server.readers();
    let twice = again.values().filter(|times| **times > 1).count();
    if twice > held {
        return Err(format!("{twice} got two mails, and {held} were held").into());
    }
    let rows = usize::try_from(ROWS)?;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    line("… lost", (rows - again.len()) as f64, 0.0)
}

fn tell(how: &str, doubled: usize, held: usize, began: Instant) -> Result<(), Failed> {
    let case = format!(
        "{} passes mailed, {how}: doubled by itself ({held} held, {:.0} s)",
        thousands(ROWS),
        began.elapsed().as_secs_f64()
    );
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    line(&case, doubled as f64, 0.0)
}

/// Runs a command until something has come about, and kills it.
async fn killed_at(
    office: &Office,
    arguments: &[&str],
    enough: impl Fn() -> bool,
) -> Result<(), Failed> {
    let mut process = office.command(arguments).stderr(Stdio::null()).spawn()?;
    let mut ended = None;
    until(|| {
        ended = process.try_wait().ok().flatten();
        enough() || ended.is_some()
    })
    .await?;
    match ended {
        Some(status) => Err(format!("it ended with {status} before it was killed").into()),
        None => end(process),
    }
}

fn end(mut process: Child) -> Result<(), Failed> {
    process.kill()?;
    process.wait()?;
    Ok(())
}

async fn until(mut holds: impl FnMut() -> bool) -> Result<(), Failed> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > PATIENCE {
            return Err("waited in vain".into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn passes(office: &Office) -> u64 {
    office.tenant.with(|tenant, _| tenant.passes().count()) as u64
}

fn thousands(number: u64) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

fn print(text: &str) -> Result<(), Failed> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
