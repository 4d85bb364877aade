-- A tapwave run, version 3. It holds no pass in the clear and no token.
-- Times are RFC 3339 in UTC. Columns that end in _json hold JSON.

CREATE TABLE about (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    about_json TEXT NOT NULL,               -- id, options, recipients, policy, wave
    place      TEXT NOT NULL,               -- the folder it was made in, or was last agreed to go on in
    checked_at TEXT NOT NULL,               -- the latest check
    closed_at  TEXT,                        -- cleanup began: no pass is issued after this
    purged_at  TEXT,                        -- the sealed copies were destroyed
    requests   INTEGER NOT NULL DEFAULT 0,  -- calls to Graph
    throttled  INTEGER NOT NULL DEFAULT 0   -- calls Graph refused because of throttling
) STRICT;

CREATE TABLE rows (
    line                    INTEGER PRIMARY KEY,  -- in the wave file, counted from 1
    user_principal_name     TEXT NOT NULL,
    user_principal_name_key TEXT NOT NULL,        -- in lower case
    cells_json              TEXT NOT NULL,        -- every field as the wave wrote it
    wanted_json             TEXT NOT NULL,        -- what the row asked for
    state                   TEXT NOT NULL,        -- one word
    state_json              TEXT NOT NULL,        -- with its evidence
    user_id                 TEXT,
    display_name            TEXT,
    asked_json              TEXT,
    recipient_set           INTEGER,              -- index into about_json's recipients
    latest_intent           INTEGER,
    attempts                INTEGER NOT NULL DEFAULT 0,
    method_id               TEXT,                 -- the pass, as Graph names it
    pass_start              TEXT,
    pass_lifetime_minutes   INTEGER,
    pass_one_time           INTEGER,
    reason                  TEXT,
    reader_json             TEXT,                 -- who gets the mail
    notice_reader_json      TEXT,                 -- who is told that the reader has it
    notice                  TEXT,                 -- due, open or done, once that mail was taken
    foreign_method_id       TEXT,                 -- somebody else's pass that was seen
    absent_since            TEXT,                 -- Graph's clock at the first look that showed nothing of ours
    looked_at               TEXT,                 -- Graph's clock at the second look at a sealed pass
    sealed_at               INTEGER,              -- Graph's clock when it was sealed, in seconds
    handoff_file            TEXT
) STRICT;
CREATE INDEX rows_by_state ON rows (state, line);
CREATE INDEX rows_to_look_at ON rows (line) WHERE looked_at IS NULL AND sealed_at IS NOT NULL;
CREATE INDEX rows_by_notice ON rows (notice, line) WHERE notice IS NOT NULL;

-- The encrypted passes: each is a complete age file. Empty once cleanup has purged them.
CREATE TABLE sealed (
    line       INTEGER PRIMARY KEY,
    ciphertext BLOB NOT NULL
) STRICT;

-- Every pass of which an answer of Graph's ever named the id to this run; never forgotten.
CREATE TABLE passes (
    method_id TEXT NOT NULL,
    line      INTEGER NOT NULL,
    over_at   TEXT NOT NULL,  -- Graph's clock when its time is over at the latest
    ended     TEXT,           -- deleted, replaced, over or absent: how it is known to be gone
    PRIMARY KEY (method_id, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX passes_by_line ON passes (line);
CREATE INDEX passes_alive ON passes (line) WHERE ended IS NULL;
CREATE INDEX passes_given_up ON passes (line) WHERE ended = 'absent';

-- One for each request that was about to be sent.
CREATE TABLE intents (
    intent     INTEGER PRIMARY KEY AUTOINCREMENT,
    line       INTEGER NOT NULL,
    user_id    TEXT NOT NULL,
    asked_json TEXT NOT NULL,
    graph_time TEXT NOT NULL,  -- Graph's clock when it was minted
    minted_at  TEXT NOT NULL,  -- this machine's clock then
    given_up   TEXT,           -- Graph's clock when its answer came, or was given up
    outcome    TEXT,           -- NULL: unknown
    may_live   INTEGER NOT NULL DEFAULT 1  -- 0 once no pass of it can be alive but one that `passes` names
) STRICT;
CREATE INDEX intents_by_line ON intents (line);
CREATE INDEX intents_open ON intents (line) WHERE may_live;

-- Everything that ever happened to a row, in order.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,
    line       INTEGER NOT NULL,
    at         TEXT NOT NULL,
    event      TEXT NOT NULL,  -- one word
    event_json TEXT NOT NULL   -- with its evidence
) STRICT;
CREATE INDEX events_by_line ON events (line, seq);

-- The latest mails of each row, one for a channel: what was frozen before it was sent, and what became of it.
CREATE TABLE mails (
    line        INTEGER NOT NULL,
    channel     TEXT NOT NULL,  -- pass: to whoever gets it; notice: to whoever is told of that
    message_id  TEXT NOT NULL,
    mail_date   TEXT NOT NULL,  -- its Date header
    recipient   TEXT NOT NULL,
    courier     TEXT NOT NULL,
    body        TEXT NOT NULL,  -- pass, sealed or notice; never the text
    digest      TEXT NOT NULL,  -- SHA-256 of its bytes
    outcome     TEXT,           -- NULL: unknown
    receipt     TEXT,           -- the other side's words
    ended_at    TEXT,
    PRIMARY KEY (line, channel)
) STRICT, WITHOUT ROWID;

-- Finished handoff files.
CREATE TABLE handoffs (
    file       TEXT PRIMARY KEY,
    written_at TEXT NOT NULL,
    digest     TEXT NOT NULL   -- SHA-256 of its bytes: cleanup deletes nothing else
) STRICT, WITHOUT ROWID;
