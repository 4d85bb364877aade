//! Promises that a request to stop is obeyed whatever the rest of the program is doing, also when
//! all of it is stuck: on threads of their own, of which the one that listens waits for nothing
//! but the next request.
//!
//! The first Ctrl-C stops new work and lets what is in flight be finished; before there is any
//! work, it ends the program. The second leaves at once; what was committed stays. A terminal
//! that is closed, a logoff and a shutdown are a first request, and never a second: systems say so
//! several times.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use tapwave::output::Report;
use tapwave_core::exit::Exit;
use tapwave_core::limits;
use tapwave_pipeline::stop::{StopSignal, StopSwitch};

/// Who asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopRequest {
    /// Somebody, who may ask again.
    Asked,
    /// The system: the terminal or the console is gone, or about to go.
    HungUp,
}

/// Listens from here on.
pub(super) fn listen(switch: StopSwitch, signal: StopSignal, report: &Arc<Report>) {
    let listening = Signals::listen().and_then(|signals| {
        let (sender, requests) = mpsc::channel();
        let speaker = Arc::clone(report);
        named("stopping").spawn(move || stop(&requests, &switch, &signal, &speaker))?;
        let leaver = Arc::clone(report);
        named("signals").spawn(move || forward(signals, &sender, &leaver)).map(drop)
    });
    if let Err(error) = listening {
        report.warn(format_args!("Ctrl-C cannot be listened for ({error}): it leaves at once"));
    }
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned())
}

/// Waits for nothing but requests: what takes a lock is done by [`stop`].
fn forward(signals: Signals, sender: &Sender<StopRequest>, report: &Report) {
    let mut was_asked = false;
    signals.each(|request| {
        if request == StopRequest::Asked && std::mem::replace(&mut was_asked, true) {
            leave(report);
        }
        // Nobody hears any more when the program is about to end.
        let _ = sender.send(request);
    });
}

/// Begins to stop, or ends a program that has nothing to finish. What it waits for may be
/// stuck.
fn stop(
    requests: &Receiver<StopRequest>,
    switch: &StopSwitch,
    signal: &StopSignal,
    report: &Report,
) {
    for request in requests {
        if request == StopRequest::HungUp {
            report.hang_up();
        }
        let first = switch.request();
        if !signal.is_at_work() {
            // It gives up by itself, unless it is held up: by a pipe that nobody writes to, say.
            thread::sleep(limits::STOP_GRACE);
            if !signal.is_at_work() {
                leave(report);
            }
        }
        if first {
            tracing::info!(hung_up = request == StopRequest::HungUp, "stopping");
        }
        if first || request == StopRequest::Asked {
            report.info("stopping: what is in flight is finished; once more to leave at once");
        }
    }
}

/// Runs nothing on its way out that could wait for a stuck thread: no destructor, no exit
/// handler.
fn leave(report: &Report) -> ! {
    report.leave();
    signal_hook::low_level::exit(Exit::Interrupted as i32)
}

/// The signals that ask the program to stop.
#[cfg(unix)]
struct Signals(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = vec![SIGINT, SIGTERM];
        // With `nohup` the program is to outlive its terminal.
        if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        signal_hook::iterator::Signals::new(signals).map(Self)
    }

    fn each(mut self, mut on_request: impl FnMut(StopRequest)) {
        for signal in self.0.forever() {
            on_request(match signal {
                signal_hook::consts::SIGHUP => StopRequest::HungUp,
                _ => StopRequest::Asked,
            });
        }
    }
}

/// Whether whoever started the program had it ignore a signal. Known on Linux alone.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The console events that ask the program to stop. That of a console which is closed, of a
/// logoff or a shutdown ends the process when it has been handled, so it never is: the program
/// has until its own end, or as long as the system lets it.
#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    interrupt_harder: tokio::signal::windows::CtrlBreak,
    close: tokio::signal::windows::CtrlClose,
    logoff: tokio::signal::windows::CtrlLogoff,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::windows;
        Ok(Self {
            interrupt: windows::ctrl_c()?,
            interrupt_harder: windows::ctrl_break()?,
            close: windows::ctrl_close()?,
            logoff: windows::ctrl_logoff()?,
            shutdown: windows::ctrl_shutdown()?,
        })
    }

    fn each(mut self, mut on_request: impl FnMut(StopRequest)) {
        // Not on the program's runtime, all of whose threads may be stuck.
        futures::executor::block_on(async {
            loop {
                let request = tokio::select! {
                    _ = self.interrupt.recv() => StopRequest::Asked,
                    _ = self.interrupt_harder.recv() => StopRequest::Asked,
                    _ = self.close.recv() => StopRequest::HungUp,
                    _ = self.logoff.recv() => StopRequest::HungUp,
                    _ = self.shutdown.recv() => StopRequest::HungUp,
                };
                on_request(request);
            }
        });
    }
}
