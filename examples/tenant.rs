//! Promises a simulated tenant for anything that speaks HTTP: prints one line of JSON with its
//! URL and token, and serves until it is ended.
//!
//!     cargo run --example tenant -- --count 2000 --throttle bucket:20,20 --latency 50ms
//!
//! tapwave is pointed at it with `--auth token --graph-url URL` and the token in
//! `TAPWAVE_ACCESS_TOKEN`.
//!
//! `GET /control/{log,passes,mails,tally,options}` shows what happened; `POST
//! /control/{break,advance,use,issue,dismiss}` changes things.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use jiff::fmt::friendly::SpanParser;
use tapwave_simulator::options::{CodeStyle, Latency, Limit, SecondPost, Throttle};
use tapwave_simulator::{Options, Tenant};
use tokio_rustls::rustls::ServerConfig;

#[path = "../tests/support/certificates.rs"]
mod certificates;
#[expect(dead_code, reason = "other tests ask for more of it")]
#[path = "../tests/support/server.rs"]
mod server;

/// Serves a simulated Microsoft Entra tenant on loopback.
#[derive(Parser)]
struct Flags {
    /// Port, or any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A CSV file with a userPrincipalName column: who is in the tenant
    #[arg(long, conflicts_with = "count")]
    users: Option<PathBuf>,
    /// Users to invent: user1@contoso.example and so on
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Limit on passes written: none, bucket:RATE,BURST, fixed:UNITS,10s or sliding:UNITS,10s
    #[arg(long, value_parser = limit)]
    throttle: Option<Limit>,
    /// Limit on passes read
    #[arg(long, value_parser = limit)]
    reads: Option<Limit>,
    /// Limit on directory look-ups, in resource units
    #[arg(long, value_parser = limit)]
    directory: Option<Limit>,
    /// How long a round trip takes
    #[arg(long, value_parser = duration)]
    latency: Option<Duration>,
    /// Refuse a second pass instead of replacing the first
    #[arg(long)]
    reject_second: bool,
    /// Lists show passes this long after they were made, and until this long after their end
    #[arg(long, value_parser = duration, value_name = "TIME")]
    list_lag: Option<Duration>,
    /// Take every token for one of another tenant: nobody is known
    #[arg(long)]
    another_tenant: bool,
    /// Make codes that hurt careless readers
    #[arg(long)]
    nasty_codes: bool,
    /// Decides every choice left to chance
    #[arg(long)]
    seed: Option<u64>,
    /// A JSON file with rehearsal options; the other flags go over it
    #[arg(long)]
    options: Option<PathBuf>,
    /// Serve HTTP/2 and HTTP/1.1 over TLS, and leave the authority's certificate in this folder
    /// as ca.pem
    #[arg(long, value_name = "FOLDER")]
    tls: Option<PathBuf>,
    /// The access token to expect
    #[arg(long, default_value = "rehearsal-token")]
    token: String,
}

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let flags = Flags::parse();
    let options = options(&flags)?;
    let mut tenant = Tenant::for_wave(upns(&flags)?, options.seed);
    *tenant.options_mut() = options;
    let tls = flags.tls.as_deref().map(tls);
    let served = server::Served::open(tenant, flags.port, &flags.token, tls).await?;
    let url = served.url();
    let control = url.replace("/v1.0", "/control");
    let seed = served.with(|tenant, _| tenant.options().seed);
    let line =
        serde_json::json!({"url": url, "token": flags.token, "control": control, "seed": seed});
    writeln!(std::io::stdout(), "{line}")?;
    Ok(tokio::signal::ctrl_c().await?)
}

fn tls(folder: &Path) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(&certificates::certify(folder, false));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn upns(flags: &Flags) -> Result<Vec<String>, Failed> {
    let Some(path) = &flags.users else {
        return Ok((1..=flags.count).map(|n| format!("user{n}@contoso.example")).collect());
    };
    let mut reader = csv::Reader::from_path(path)?;
    let named =
        |name: &str| name.trim_start_matches('\u{feff}').eq_ignore_ascii_case("userPrincipalName");
    let column = reader.headers()?.iter().position(named);
    let column = column.ok_or("the file has no column userPrincipalName; add one")?;
    let cells = reader.records().map(|row| Ok(row?.get(column).unwrap_or_default().to_owned()));
    cells.collect()
}

fn options(flags: &Flags) -> Result<Options, Failed> {
    let mut options = match &flags.options {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => Options::default(),
    };
    options.seed = flags.seed.unwrap_or(options.seed);
    let throttles = &mut options.throttles;
    for (wish, place) in [
        (flags.throttle, &mut throttles.pass_writes),
        (flags.reads, &mut throttles.pass_reads),
        (flags.directory, &mut throttles.directory),
    ] {
        if let Some(limit) = wish {
            *place = Throttle { limit, ..place.clone() };
        }
    }
    if let Some(latency) = flags.latency {
        options.latency = Latency::of(latency);
    }
    if flags.reject_second {
        options.second_post = SecondPost::Rejected;
    }
    if let Some(lag) = flags.list_lag.map(Latency::of) {
        options.replication.unlisted_after_create = lag;
        options.replication.listed_after_end = lag;
    }
    options.another_tenant |= flags.another_tenant;
    if flags.nasty_codes {
        options.code_style = CodeStyle::Nasty;
    }
    Ok(options)
}

fn limit(text: &str) -> Result<Limit, String> {
    let wrong =
        || format!("{text:?} is no limit; write bucket:20,20 or fixed:5,10s or sliding:5,10s");
    if text == "none" {
        return Ok(Limit::None);
    }
    let (kind, numbers) = text.split_once(':').ok_or_else(wrong)?;
    let (first, second) = numbers.split_once(',').ok_or_else(wrong)?;
    let units: f64 = first.parse().map_err(|_| wrong())?;
    match kind {
        "bucket" => Ok(Limit::Bucket { rate: units, burst: second.parse().map_err(|_| wrong())? }),
        "fixed" => Ok(Limit::Fixed { units, per: duration(second)? }),
        "sliding" => Ok(Limit::Sliding { units, per: duration(second)? }),
        _ => Err(wrong()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    SpanParser::new().parse_unsigned_duration(text).map_err(|error| error.to_string())
}
