//! Promises a window of one's own: a pseudo-terminal that controls a program's session, with
//! hands on its keys and eyes on its screen, or with neither.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A window, and the program in it. Both end with it.
pub(crate) struct Window {
    /// Our side; `None` when it is closed.
    screen: Option<File>,
    /// The program's side, kept open so that what it wrote last can be read.
    within: File,
    program: Child,
    seen: String,
}

impl Window {
    /// Opens one and starts a program in it, with this window as its controlling terminal.
    pub(crate) fn open(inner: &Command) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let screen = screen.expect("a pseudo-terminal");
        grantpt(&screen).and_then(|()| unlockpt(&screen)).expect("ours");
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen, size).expect("sized");
        let name = ptsname(&screen, Vec::new()).expect("a name").into_bytes();
        let name = std::ffi::OsString::from_vec(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed());
        let within = options.open(name).expect("its other side");
        rustix::io::ioctl_fionbio(&screen, true).expect("set");
        let handle = || within.try_clone().expect("another handle");
        let mut program = Command::new("/usr/bin/setsid");
        program.arg("--ctty").arg(inner.get_program());
        program.args(inner.get_args().filter(|argument| *argument != "--no-progress"));
        program.env_clear().current_dir(inner.get_current_dir().expect("set"));
        program.envs(inner.get_envs().map(|(name, value)| (name, value.expect("set"))));
        program.env("TERM", "xterm").stdin(handle()).stdout(handle()).stderr(handle());
        let program = program.spawn().expect("started");
        Self { screen: Some(screen.into()), within, program, seen: String::new() }
    }

    /// Reads what there is on the screen.
    fn look(&mut self) {
        let Some(screen) = &mut self.screen else { return };
        let mut block = [0; 4096];
        loop {
            match screen.read(&mut block) {
                Ok(0) => return,
                Ok(read) => self.seen.push_str(&String::from_utf8_lossy(&block[..read])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Looks on until words are on the screen.
    #[track_caller]
    pub(crate) fn until_shown(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.seen.contains(words) {
            self.look();
            assert!(begun.elapsed() < PATIENCE, "never shown: {words:?} in {:?}", self.seen);
            std::thread::sleep(GLANCE);
        }
    }

    /// Whether what is typed is shown.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.within).expect("modes");
        modes.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Waits until what is typed is shown, or not.
    #[track_caller]
    pub(crate) fn until_it_echoes(&self, wished: bool) {
        let begun = Instant::now();
        while self.echoes() != wished {
            assert!(begun.elapsed() < PATIENCE, "echo never became {wished}");
            std::thread::sleep(GLANCE);
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.screen.as_mut().expect("open").write_all(keys).expect("typed");
    }

    /// Fills the window to its rim: whoever writes to it from now on waits until somebody looks.
    pub(crate) fn fill(&self) {
        rustix::io::ioctl_fionbio(&self.within, true).expect("set");
        let mut within = &self.within;
        while within.write(&[b'.'; 512]).is_ok() {}
        while within.write(b".").is_ok() {}
        rustix::io::ioctl_fionbio(&self.within, false).expect("set");
    }

    /// Closes the window, as a dropped connection does.
    pub(crate) fn close(&mut self) {
        self.screen = None;
    }

    pub(crate) fn id(&self) -> u32 {
        self.program.id()
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.program.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("sent");
    }

    /// Looks on until the program ends; its exit code, and all that was shown.
    #[track_caller]
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let code = self.wait(true);
        self.look();
        (code, std::mem::take(&mut self.seen))
    }

    /// Waits for the end, and looks at nothing.
    #[track_caller]
    pub(crate) fn end_unseen(&mut self) -> Option<i32> {
        self.wait(false)
    }

    #[track_caller]
    fn wait(&mut self, looks: bool) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if looks {
                self.look();
            }
            if let Some(status) = self.program.try_wait().expect("a child") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it never ends; shown: {:?}", self.seen);
            std::thread::sleep(GLANCE);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
