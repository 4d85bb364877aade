//! Arguments in, exit code out.
//!
//! Also what must hold for the whole process before anything else happens: freed memory is
//! wiped, no core is dumped, nobody traces it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tapwave::cli::Cli;
use tapwave::clock::Clock;
use tapwave::commands::{World, perform};
use tapwave::exit::Exit;
use tapwave::report::{Asking, Log, Manner, Report};
use tapwave::stages::{Drain, DrainSwitch};
use zeroizing_alloc::ZeroAlloc;

/// Wipes memory when it is freed, so that no buffer of a library keeps a pass.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    keep_out_of_dumps();
    let cli = Cli::parse();
    let manner = Manner {
        quiet: cli.common.quiet,
        verbose: cli.common.verbose,
        json: cli.common.json,
        no_progress: cli.common.no_progress,
    };
    let report = Arc::new(Report::new(manner));
    let (switch, drain) = Drain::new();
    let world = World {
        environment: Box::new(|name| std::env::var(name).ok()),
        clock: Clock::system(),
        drain,
        report: Arc::clone(&report),
        log: Log::begin(manner.verbose > 1),
        asking: Asking::on_terminal(),
        common: cli.common.clone(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report.complain(format_args!("failed to start: {error}"));
            return Exit::Unexpected.into();
        }
    };
    runtime.spawn(heed_signals(switch, Arc::clone(&report)));
    let exit = match runtime.block_on(perform(cli, &world)) {
        Ok(exit) => exit,
        Err(failure) => {
            report.tell(&failure.told, failure.exit);
            failure.exit
        }
    };
    exit.into()
}

/// The first Ctrl-C stops new work; the second leaves at once. What was committed stays.
async fn heed_signals(switch: DrainSwitch, report: Arc<Report>) {
    // Listened for without a gap: the second may come while the first is being answered.
    let Ok(mut signals) = StopSignals::listen() else {
        report.warn("Ctrl-C cannot be listened for: it will leave at once");
        return;
    };
    loop {
        signals.next().await;
        if switch.begin() {
            report.say("stopping: what is in flight is finished; once more to leave at once");
        } else {
            report.leave();
            std::process::exit(Exit::Interrupted as i32);
        }
    }
}

/// The signals that ask the program to stop.
#[cfg(unix)]
struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The signals that ask the program to stop.
#[cfg(windows)]
struct StopSignals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl StopSignals {
    fn listen() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// A core file or a debugger would see the passes that are in flight. Best effort: a system
/// that refuses is no worse off than without.
#[cfg(unix)]
fn keep_out_of_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

#[cfg(not(unix))]
fn keep_out_of_dumps() {}
