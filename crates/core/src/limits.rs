//! Promises that everything in tapwave is bounded, and names each bound.
//!
//! A number that limits size, count, or waiting stands here and nowhere else,
//! with its unit in the type or the name and the reason beside it.

use std::time::Duration;

/// Most rows one wave may hold. A tenant-wide wave beyond this is split by its owner.
pub const MAX_ROWS: u64 = 1_000_000;
/// Most bytes one wave file may hold; a million rows of 512 bytes.
pub const MAX_WAVE_BYTES: u64 = 512 * 1024 * 1024;
/// Most bytes in one field of the wave, after decoding.
pub const MAX_FIELD_BYTES: usize = 32 * 1024;
/// Most columns a wave may have; the portal's export has fewer than 60.
pub const MAX_COLUMNS: usize = 512;
/// Most bytes in a userPrincipalName. Entra allows 64 before the `@` and 48 after it for
/// managed domains, and up to 113 in all.
pub const MAX_UPN_BYTES: usize = 113;

/// Bounds Graph sets on a pass's lifetime, in minutes (documented: 10–43200).
pub const LIFETIME_MINUTES: std::ops::RangeInclusive<u32> = 10..=43_200;

/// Longest lifetime that auditors take for granted: a working day.
pub const WORKING_DAY_MINUTES: u32 = 8 * 60;

/// Bounds Graph sets on the characters of a pass (documented: 8–48).
pub const PASS_LENGTH: std::ops::RangeInclusive<u32> = 8..=48;
/// Times a changed policy is looked at before its change is given up as not taken; the waits
/// between double from [`READ_BACKOFF`].
pub const POLICY_LOOKS: u32 = 5;

/// Most values in one `in (…)` filter on users (documented).
pub const USERS_PER_FILTER: usize = 15;
/// Most requests in one `$batch` (documented).
pub const REQUESTS_PER_BATCH: usize = 20;
/// Batches in flight at once in one budget, unless fewer requests are allowed to be. With sixteen a
/// tenant that bears 300 reads at once refused 300 of 1,200, and the check took half as long again.
pub const BATCHES_IN_FLIGHT: usize = 8;
/// Pages of [`ROWS_PER_CHECK`] whose passes are read, or removed, side by side: enough that no
/// batch waits for the next page, few enough that memory stays flat.
pub const PAGES_IN_FLIGHT: usize = 4;
/// Most group ids in one `checkMemberGroups` call (documented).
pub const GROUPS_PER_CHECK: usize = 20;
/// Largest page Graph gives of directory objects (documented).
pub const PAGE_SIZE: usize = 999;
/// Most pages followed in one listing: a million members and no endless `nextLink` chain.
pub const MAX_PAGES: usize = 1_100;
/// Most members of whom a check keeps what the group's list told: a few hundred bytes each,
/// where memory is to stay flat.
pub const MAX_PRELOADED: u64 = 12_000;
/// Below this many rows, asking about each is as cheap as counting a group first.
pub const ROWS_WORTH_COUNTING: u64 = 40;
/// A group this many times the wave's size is asked about row by row: its list would not fit
/// the memory that a wave may use.
pub const MAX_GROUP_PER_WAVE: u64 = 4;
/// Most target groups resolved for one check.
pub const MAX_GROUPS: usize = 200;

/// Most bytes read from one Graph answer. A full page of users is about 1 MiB.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// What a connection over HTTP/1.1 reads at a time, and the longest head of an answer. Graph's
/// are a tenth of it.
pub const HTTP_BUFFER_BYTES: usize = 16 * 1024;
/// Wait for a connection to Graph.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Wait for one whole answer; after it the outcome of a write is unsettled. Graph's own
/// gateway gives up well before this.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(100);
/// Wait for one POST of a pass with all that belongs to it: two requests, if the token was
/// refused and another could be had, and the sign-in between them. A resume counts on it.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(4);
/// Retries of one request to the sign-in address, throttling included.
pub const SIGN_IN_RETRIES: u32 = 3;
/// All attempts of one sign-in together take no longer than this.
pub const SIGN_IN_PATIENCE: Duration = Duration::from_secs(20);
/// How long a failed sign-in is told to everybody who asks, before it is tried again: whoever
/// waits in line would otherwise fail one after the other, each with its own patience.
pub const SIGN_IN_FAILURE_HOLDS: Duration = Duration::from_secs(5);
/// A token is renewed when it has less than this left, or a fifth of its life if that is less.
pub const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// Longest life of a token that is believed; Microsoft's longest is 28 hours.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_hours(48);
/// A token this young is not dropped when Graph refuses one: the refused one was older.
pub const TOKEN_SETTLES: Duration = Duration::from_secs(10);
/// How long a person may take to sign in in the browser.
pub const SIGN_IN_WAIT: Duration = Duration::from_mins(5);
/// Most bytes of the browser's request to the loopback address.
pub const MAX_REDIRECT_BYTES: usize = 16 * 1024;
/// Wait for the address of an Azure machine's identity; elsewhere nobody answers there.
pub const METADATA_PROBE: Duration = Duration::from_secs(1);
/// How long a client certificate's assertion is good, and how far back, for clocks that differ.
pub const ASSERTION_GOOD_FOR: Duration = Duration::from_mins(10);
/// Idle connections are dropped after this, so that a write is seldom sent on one that the
/// other side has already closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a connection on which nothing happens is tried, as reqwest does.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// Times that such a try may go unanswered before the connection counts as broken.
pub const KEEPALIVE_PROBES: u32 = 3;
/// How long what was sent may go unacknowledged before it does.
pub const UNHEARD: Duration = Duration::from_secs(30);

/// Requests in flight at once unless `--max-in-flight` says otherwise.
pub const DEFAULT_IN_FLIGHT: usize = 64;
/// Most requests in flight that may be asked for.
pub const MAX_IN_FLIGHT: usize = 512;
/// Rows that the scheduler works on at once, as a multiple of the requests in flight.
pub const ROWS_AHEAD: usize = 2;
/// Rows read from the ledger at a time: about 70 kB, below the size from which an allocator maps
/// blocks by themselves and leaves holes between them.
pub const ROWS_PER_READ: usize = 64;
/// Rows checked together: twenty filters of fifteen users fill one `$batch`.
pub const ROWS_PER_CHECK: usize = USERS_PER_FILTER * REQUESTS_PER_BATCH;
/// Most ledger records committed in one group.
pub const RECORDS_PER_COMMIT: usize = 512;

/// How long we wait before we believe that a lost POST will not execute any more.
/// An assumption (SECURITY.md): nothing in Graph's documentation bounds a queued request.
pub const DEFAULT_SETTLE_AFTER: Duration = Duration::from_mins(5);
/// A settling time shorter than this is told to protect from little.
pub const SHORT_SETTLE_AFTER: Duration = Duration::from_mins(1);
/// Most attempts of one row that are lost, find no such user, or find a pass in their way that
/// nobody can remove, before the row has failed.
pub const MAX_ATTEMPTS: u32 = 8;
/// First wait before a row is tried again for another reason than throttling; it doubles.
pub const ROW_BACKOFF: Duration = Duration::from_secs(2);
/// Longest such wait. With [`MAX_ATTEMPTS`] a user who appears late has four minutes.
pub const MAX_ROW_BACKOFF: Duration = Duration::from_secs(64);
/// After so many lost answers in a row, one row at a time is tried until one succeeds.
pub const LOSSES_BEFORE_CAUTION: u32 = 8;
/// Most times a read or a DELETE is sent again after an answer was lost.
pub const MAX_READ_ATTEMPTS: u32 = 6;
/// First wait before a read is repeated; it doubles.
pub const READ_BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait before a read is repeated.
pub const MAX_READ_BACKOFF: Duration = Duration::from_secs(30);
/// A run that has had no answer but refusals and losses for this long ends with exit 6.
pub const MAX_OUTAGE: Duration = Duration::from_mins(15);
/// Longest `Retry-After` that is waited for. A longer one counts as an outage, at once.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(15);
/// Longest `Retry-After` that is told: what is longer, or no time at all, is told as this.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(30 * 24);

/// Times that a pass just created, or a user made minutes ago, is looked for before it counts as
/// not there: a replica may not have heard of it.
pub const LOOKS: u32 = 4;
/// First wait between two such looks; it doubles.
pub const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// How far the creation of a pass, as a list tells it, may lie from the seconds in which its POST
/// was answered, to be taken for that POST's under another id. Wider, and somebody else's pass that
/// looks alike would be deleted.
pub const ANSWERED_SLACK: Duration = Duration::from_secs(2);
/// How far apart two looks lie at least that are to prove by what they do not show, however short
/// the settling time: seconds are usual for a replica that is behind.
pub const LEAST_PATIENCE: Duration = Duration::from_mins(1);
/// How long cleanup looks again for a user whom Graph does not find: somebody new is known to all
/// replicas soon, and somebody deleted is not worth a longer wait.
pub const UNKNOWN_USER_PATIENCE: Duration = Duration::from_secs(14);
/// Most looks at one row by one cleanup, in a tenant that shows something new each time.
pub const MOST_LOOKS: u32 = 32;
/// How long what is in flight has to be answered once somebody asks to stop. A request that the
/// tenant holds back for longer has not gone out.
pub const IN_FLIGHT: Duration = Duration::from_secs(4);
/// Graph's `Date` header tells whole seconds: a stretch of its time is known to one second.
pub const DATE_ROUNDING: Duration = Duration::from_secs(1);
/// How long a second look counts: a resume looks again at what an earlier process has seen before
/// then.
pub const LOOK_GOOD_FOR: Duration = Duration::from_mins(1);
/// How old a sealed pass is before it is looked at a second time while issuing goes on: younger
/// ones may not be listed yet.
pub const SECOND_LOOK_AGE: Duration = Duration::from_secs(30);
/// How often a second look begins while issuing goes on.
pub const BETWEEN_SECOND_LOOKS: Duration = Duration::from_secs(5);
/// Most passes of one second look while issuing goes on: three calls.
pub const SECOND_LOOK_ROWS: usize = 60;
/// With `--final-look auto`, a second look that the tenant's read rate draws out longer than
/// this is left out.
pub const LONGEST_FINAL_LOOK: Duration = Duration::from_mins(2);
/// A resume checks unissued rows again when the last check is older than this.
pub const CHECK_GOOD_FOR: Duration = Duration::from_mins(15);
/// How far two clocks inside Graph may differ when a pass's creation time is compared with
/// an intent's.
pub const CLOCK_SLACK: Duration = Duration::from_mins(1);
/// How far the clocks of Graph's parts may lie apart at most, for a pass that looks like a lost
/// attempt's and was made at another time to be taken for one that may be this run's: minutes were
/// seen. More, and every pass of the tenant's usual shape would be doubted.
pub const PARTS_APART: Duration = Duration::from_mins(15);
/// A start nearer than this is left out of the request: Graph refuses one that has passed by
/// the time it arrives.
pub const START_MARGIN: Duration = Duration::from_secs(30);
/// By how much the wall clock and the monotonic one may disagree about a stretch of time before
/// Graph is asked for its own: more than a time server's correction, less than a nap.
pub const CLOCKS_APART: Duration = Duration::from_secs(10);
/// Usable time that must be left for whoever reads a pass last.
pub const LEAST_USABLE: Duration = Duration::from_mins(30);

/// A pass that has no more than this left is not mailed: the mail takes its time to arrive, and
/// somebody has to read it and type the code in.
pub const LAST_MOMENTS: Duration = Duration::from_mins(1);

/// Most bytes of a log's first line, by which one is known.
pub const MAX_LOG_LINE_BYTES: u64 = 64 * 1024;

/// Problems shown in full on the terminal; the rest are counted and go to `--rejects`.
pub const PROBLEMS_SHOWN: usize = 50;
/// Held rows that a hint names: each has to be looked at by a person.
pub const HELD_NAMED: usize = 5;
/// Problems kept in memory while a wave is read.
pub const MAX_PROBLEMS: usize = 10_000;
/// Most bytes of a message from Graph that are kept or shown.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// Most recipients one pass may be sealed to.
pub const MAX_RECIPIENTS: usize = 64;
/// Most different sets of recipients in one run, thus handoff files.
pub const MAX_RECIPIENT_SETS: usize = 1_000;
/// Largest age file `open` reads: a million rows of about 200 bytes.
pub const MAX_HANDOFF_BYTES: u64 = 1024 * 1024 * 1024;
/// Most entries of a container that `open` reads: as many rows as a wave may have.
pub const MAX_CONTAINER_ENTRIES: u64 = MAX_ROWS;
/// Largest container `open` reads: a million rows of 16 KiB, which is a row sealed to the most
/// recipients. It is read as a stream, so that this bounds time alone.
pub const MAX_CONTAINER_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// How far an unknown key of the settings file may be from a known one to be taken for a
/// slip of the hand, in edits.
pub const NEAR_KEY: usize = 3;
/// Largest settings, recipient, or identity file.
pub const MAX_SETTINGS_BYTES: u64 = 1024 * 1024;

/// `SQLite`'s page cache per connection, in KiB: memory stays flat however many rows a run has.
pub const LEDGER_CACHE_KIB: u32 = 2 * 1024;
/// How long one connection to a ledger waits for another one's lock.
pub const LEDGER_BUSY: Duration = Duration::from_secs(5);
/// How long it is remembered that a run let go of somebody: longer than the check of a wave takes
/// whose looks may lie before that.
pub const CLAIM_REMEMBERED: Duration = Duration::from_hours(24);
/// How long one process waits for another that claims people: a claim of a page of rows takes
/// milliseconds, and looks into the ledgers of the runs that have some of them.
pub const CLAIMS_BUSY: Duration = Duration::from_secs(30);
/// Most bytes of write-ahead log that stay on disk after a checkpoint.
pub const LEDGER_LOG_BYTES: u32 = 8 * 1024 * 1024;
/// Most characters of a run's name that come from the wave's file name.
pub const MAX_RUN_STEM: usize = 60;
/// Nearest names shown when a run is not found.
pub const NEAREST_RUNS: usize = 3;
/// Most characters kept of the command line that holds a run.
pub const MAX_HOLDER_COMMAND: usize = 200;
/// Most bytes read from the small files beside a ledger: its holder, the list of runs that
/// lie elsewhere.
pub const MAX_NOTE_BYTES: u64 = 1024 * 1024;
/// One request in so many may have leave beyond those in flight, so that its intent is
/// written while they are under way. A commit takes a tenth of a round trip or less.
pub const PREPARED_SHARE: usize = 4;
/// Requests sent at once before anything is known of a tenant's limit. Small enough that a
/// budget of five does not turn many away.
pub const FIRST_WINDOW: u32 = 10;
/// Windows below this are sent as whole bursts, each waiting for the last one's answers, so
/// that a burst budget of twenty is overrun by a handful of requests and not by a window.
pub const BURSTS_BELOW: u32 = 32;
/// What is left of a wave is not worth a probe when it takes no longer than this: a refusal
/// would cost more than the higher rate wins.
pub const LAST_STRETCH: Duration = Duration::from_secs(10);
/// A batch holds no more than what may leave in so long: a larger one would wait for its last
/// request with all the others, and then leave as one burst.
pub const BATCH_SPAN: Duration = Duration::from_millis(500);
/// So many batches of the size that was once let through at once, none of them refused, make
/// the size grow by a quarter.
pub const BATCHES_TO_GROW: u32 = 100;
/// Lateness of a timer that does not slow the flow down. Windows ticks every 15.6 ms.
pub const TIMER_LATENESS: Duration = Duration::from_millis(50);
/// Shortest hold after a refusal that named one, `Retry-After: 0` included.
pub const LEAST_HOLD: Duration = Duration::from_millis(100);
/// Wait after a refusal that named no `Retry-After`; it doubles while nothing is accepted.
pub const FIRST_HOLD: Duration = Duration::from_secs(1);
/// Longest wait after a refusal that named no `Retry-After`.
pub const MAX_HOLD: Duration = Duration::from_mins(1);
/// By how much a `Retry-After` may be longer than needed: it is given in whole seconds.
pub const RETRY_AFTER_ROUNDING: Duration = Duration::from_secs(1);
/// A refusal this soon after debt was caught up is put down to that.
pub const CATCHING_UP: Duration = Duration::from_secs(20);
/// So many refusals at once, of which the last names a wait so much longer than the first, show
/// that refusals are charged: less may be chance and rounding.
pub const CHARGED_REFUSALS: u32 = 3;
/// See [`CHARGED_REFUSALS`].
pub const CHARGED_WAIT: Duration = Duration::from_secs(3);
/// A wait longer than this is not one that rounding drew out: the round trip in it is left out of
/// the first rate.
pub const LONG_WAIT: Duration = Duration::from_secs(4);
/// What counts as lately when a rate is worked out.
pub const RECENT: Duration = Duration::from_millis(7_500);
/// How far apart the moments are at which the limiter notes what was accepted so far.
pub const MARKS_APART: Duration = Duration::from_millis(250);
/// Most such moments that are remembered: at least four minutes.
pub const MOST_MARKS: usize = 1_000;
/// How many requests' weight the rate known so far has against what the latest ones show.
pub const RATE_INERTIA: f64 = 4.0;
/// Passes per second of the slowest budget that Microsoft documents (5 per 10 s).
pub const SLOWEST_DOCUMENTED_RATE: f64 = 0.5;
/// Slowest rate the limiter goes down to by itself, per second: one request a minute.
pub const SLOWEST_RATE: f64 = 1.0 / 60.0;
/// Most bytes in the code of one pass. The policy allows up to 48 characters (documented).
pub const MAX_PASS_BYTES: usize = 512;
/// Most plugin processes one set of recipients runs at once: each sealing starts one.
pub const PLUGINS_AT_ONCE: usize = 4;
/// How long an age plugin may say nothing while it seals. Recipients are public: nobody has to
/// touch a key for them, and a pass waits in memory meanwhile.
pub const PLUGIN_SEALS: Duration = Duration::from_mins(1);
/// How long an age plugin may say nothing while it opens: somebody may have to find a key and
/// touch it.
pub const PLUGIN_OPENS: Duration = Duration::from_mins(5);
/// A person is told of a plugin that is waited for this long, as `age` itself does.
pub const PLUGIN_WAIT_TOLD: Duration = Duration::from_secs(5);
/// How long a plugin that is done may take to end.
pub const PLUGIN_LEAVES: Duration = Duration::from_secs(5);
/// Most messages of one plugin in one conversation; a stanza for each recipient, and some words.
pub const MAX_PLUGIN_MESSAGES: u32 = 1_000;
/// Most bytes of one message from an age plugin; theirs are a few hundred, post-quantum
/// stanzas about two thousand.
pub const MAX_PLUGIN_MESSAGE_BYTES: usize = 64 * 1024;
/// Most bytes that a label or a userPrincipalName contributes to a file's name; names may
/// have 255 bytes on the file systems in use.
pub const MAX_NAME_BYTES: usize = 80;
/// Highest scrypt work factor accepted in a passphrase-protected identity file, as the
/// power of two; `age` itself accepts as much and writes 18.
pub const MAX_SCRYPT_WORK: u8 = 22;
/// Most bytes looked at to find the header's end and its delimiter: 512 names of 512 bytes.
pub const MAX_HEADER_BYTES: usize = 256 * 1024;
/// Most characters of a value from the wave that a message shows.
pub const MAX_SHOWN_CHARS: usize = 60;
/// Most column names a message lists.
pub const MAX_SHOWN_COLUMNS: usize = 12;
/// Most bytes in a mail address of the wave: 254 for the address (RFC 5321), the rest for
/// the name before it.
pub const MAX_ADDRESS_BYTES: usize = 512;
/// Most bytes in a locale tag; RFC 5646 asks readers to take at least 35.
pub const MAX_LOCALE_BYTES: usize = 35;
/// Longest rehearsal that is lived through; of a longer one, the prediction is all.
pub const MAX_REHEARSAL: Duration = Duration::from_mins(2);
/// Listings that a simulated tenant keeps open; a page token of an older one has expired.
pub const REHEARSED_LISTINGS: usize = 64;
/// Most units that a simulated competing client takes one by one between two requests.
pub const REHEARSED_COMPETING_UNITS: usize = 100_000;
/// Largest template of one's own.
pub const MAX_TEMPLATE_BYTES: u64 = 64 * 1024;
/// Most entries in one folder of templates.
pub const MAX_TEMPLATE_ENTRIES: usize = 1_000;
/// Most bytes in one rendered part of a letter. The buffer has this room from the start, so
/// that it never moves and leaves a copy of a code behind.
pub const MAX_LETTER_BYTES: usize = 128 * 1024;
/// Steps that rendering one part may take; the built-in letters take about a hundred.
pub const TEMPLATE_FUEL: u64 = 100_000;
/// Most characters of a mail's subject; mail programs show about 70.
pub const MAX_SUBJECT_CHARS: usize = 200;
/// Most characters of a name before a mail address.
pub const MAX_MAIL_NAME_CHARS: usize = 128;
/// Mails a minute unless the settings say otherwise: Exchange Online's limit for a mailbox
/// (documented), for SMTP and Graph alike.
pub const MAILS_PER_MINUTE: u32 = 30;
/// Most mails a minute that may be asked for.
pub const MAX_MAILS_PER_MINUTE: u32 = 60_000;
/// Connections to a relay unless the settings say otherwise: Exchange Online's limit
/// (documented).
pub const MAIL_CONNECTIONS: usize = 3;
/// Most connections to a relay that may be asked for.
pub const MAX_MAIL_CONNECTIONS: usize = 100;
/// Passes that may wait for mail where nobody else could open them, as a multiple of the
/// connections: one under way and one behind it.
pub const WAITING_PER_CONNECTION: usize = 2;
/// Most `sendMail` requests in flight for one mailbox (documented).
pub const GRAPH_MAILS: usize = 4;
/// Wait after the first sending that may be repeated; it doubles.
pub const MAIL_BACKOFF: Duration = Duration::from_secs(5);
/// Most times a mail that certainly was not sent is tried by one command: about a quarter of
/// an hour.
pub const MAIL_ATTEMPTS: u32 = 8;
/// Most mails that may wait for another attempt while others go out: what they hold is a row
/// each, and no code.
pub const MAX_MAILS_RESTING: usize = 1_000;
/// Longest wait before a mail is sent again.
pub const MAX_MAIL_BACKOFF: Duration = Duration::from_mins(5);
/// Wait for a relay's answer to a command, and for it to take the text. RFC 5321 asks for 5
/// minutes; a relay that slow is better left and tried again.
pub const SMTP_ANSWER: Duration = Duration::from_mins(2);
/// Wait for a relay's answer to the final dot (RFC 5321, 4.5.3.2.6). Given up earlier, a
/// mail that a slow scanner was about to take would be held as unsettled.
pub const SMTP_LAST_ANSWER: Duration = Duration::from_mins(10);
/// A connection to a relay that was idle for this long is not used again.
pub const SMTP_IDLE: Duration = Duration::from_secs(30);
/// Most bytes in a host's name (RFC 1035).
pub const MAX_HOST_BYTES: usize = 255;
/// Wait for relays to answer QUIT, all of them together.
pub const SMTP_QUIT: Duration = Duration::from_secs(5);
/// Most bytes in one answer of a relay, all its lines together.
pub const MAX_SMTP_ANSWER_BYTES: u64 = 64 * 1024;
/// Most questions a relay may ask while somebody signs in: a name and a password.
pub const SMTP_CHALLENGES: u32 = 4;
/// Most bytes, and headers, in a proxy's answer to CONNECT.
pub const MAX_PROXY_ANSWER_BYTES: u64 = 16 * 1024;
/// See [`MAX_PROXY_ANSWER_BYTES`].
pub const MAX_PROXY_ANSWER_HEADERS: usize = 100;
/// How far into a web page its title is looked for.
pub const MAX_TITLE_SEARCH: usize = 4 * 1024;
/// Rows, or mails, in a row that are refused alike until that counts as a matter of everybody.
/// As many mistyped names seldom follow one another, and as few passes are quickly asked for again.
pub const EQUAL_REFUSALS: usize = 8;
/// Mails sent over one connection. Postfix and Exchange end them at a hundred or more.
pub const MAILS_PER_CONNECTION: u32 = 50;
/// Most bytes of a relay's password or token; access tokens have a few thousand.
pub const MAX_SECRET_BYTES: usize = 16 * 1024;
/// Wait for a command that prints a password.
pub const SECRET_COMMAND_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest certificate file.
pub const MAX_CERTIFICATE_BYTES: u64 = 1024 * 1024;

/// How long a program that was asked to stop, and has nothing to finish, may take to give up
/// what it waits for. Longer than its temporary folders take to be removed on a busy machine,
/// short for whoever pressed the keys.
pub const STOP_GRACE: Duration = Duration::from_millis(500);
/// How often a question, or the wait for an age plugin, looks whether it is to be given up.
pub const STOP_GLANCE: Duration = Duration::from_millis(50);
/// How long the last words of a program that leaves at once may wait for a terminal that takes
/// nothing.
pub const LAST_WORDS: Duration = Duration::from_millis(250);
/// How long the end of the program waits for what its threads still do. Nothing that counts:
/// what was acknowledged is on disk.
pub const WIND_UP: Duration = Duration::from_secs(5);
