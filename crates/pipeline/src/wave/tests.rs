//! Tests the reader with the samples, with written files, and with arbitrary bytes.

use std::io::{Cursor, SeekFrom};

use proptest::prelude::*;

use super::*;
use tapwave_core::shown::hex;

fn all_of(bytes: &[u8]) -> Result<(Header, Vec<WaveItem>), WaveError> {
    let mut reader = WaveReader::open(Cursor::new(bytes), Defaults::default())?;
    let found = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    let wave = reader.finish()?;
    assert_eq!(wave.rows, found.len() as u64);
    assert_eq!(wave.digest, hex(&Sha256::digest(bytes)));
    Ok((wave.header, found))
}

fn good(bytes: &[u8]) -> (Header, Vec<Row>) {
    let (header, found) = all_of(bytes).expect("a readable wave");
    let rows = found.into_iter().map(|found| match found {
        WaveItem::Row(row) => row,
        WaveItem::Bad(bad) => panic!("{:?}", bad.faults),
    });
    (header, rows.collect())
}

fn faults(bytes: &[u8]) -> Vec<String> {
    let (_, found) = all_of(bytes).expect("a readable wave");
    let bad = found.into_iter().filter_map(|found| match found {
        WaveItem::Row(_) => None,
        WaveItem::Bad(bad) => Some(bad.faults),
    });
    bad.flatten().map(|fault| fault.to_string()).collect()
}

fn refused(bytes: &[u8]) -> String {
    all_of(bytes).expect_err("no readable wave").to_string()
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
}

#[test]
fn every_sample_is_read() {
    let (header, rows) = good(include_bytes!("../../../../samples/wave.csv"));
    assert_eq!((header.names().len(), rows.len()), (2, 24));

    let (_, rows) = good(include_bytes!("../../../../samples/new-starters.csv"));
    assert_eq!(rows.len(), 12);
    assert_eq!(rows[0].wanted.start, "2027-03-01T07:30:00Z".parse().ok());
    assert_eq!(rows[2].wanted.start, "2027-03-01T09:00:00Z".parse().ok());
    assert_eq!(rows[1].wanted.recipient.as_deref(), Some("site-ber"));

    let (header, rows) = good(include_bytes!("../../../../samples/excel-export.csv"));
    assert_eq!((header.delimiter(), header.has_byte_order_mark()), (Delimiter::Semicolon, true));
    assert_eq!(header.value(&rows[0].cells, "department"), Some("Zürich; HQ"));
    let (before, after) = (&rows[4], &rows[5]);
    assert_eq!((before.line, after.line), (Line(6), Line(8)), "one field holds a line break");
    assert_eq!(after.wanted.one_time, Some(false));

    let (header, rows) = good(include_bytes!("../../../../samples/utf16.csv"));
    assert_eq!((header.encoding(), header.delimiter()), (Encoding::Utf16Le, Delimiter::Tab));
    assert_eq!(header.value(&rows[3].cells, "CITY"), Some("東京"));

    let (header, rows) = good(include_bytes!("../../../../samples/portal-export.csv"));
    assert_eq!((header.names().len(), rows.len()), (29, 5));
}

#[test]
fn the_sample_of_mistakes_names_each_by_line() {
    let (_, found) = all_of(include_bytes!("../../../../samples/mistakes.csv")).expect("readable");
    let lines: Vec<u64> = found
        .iter()
        .filter_map(|found| match found {
            WaveItem::Row(_) => None,
            WaveItem::Bad(bad) => Some(bad.line.0),
        })
        .collect();
    assert_eq!(lines, (3..=21).collect::<Vec<_>>());
    let faults = faults(include_bytes!("../../../../samples/mistakes.csv"));
    assert_eq!(faults.len(), 21, "the last row has three: {faults:#?}");
    let words = [
        "no userPrincipalName is written",
        "holds a space",
        "name@domain",
        "already in line 2",
        "2 fields where the header has 9",
        "10 fields",
        "two dates",
        "no time of day",
        "no offset",
        "does not exist in Europe/Berlin",
        "happens twice in Europe/Berlin",
        "Windows zone name",
        "not a known time zone",
        "\"5\" is not a number of minutes from 10 to 43200",
        "\"maybe\" is neither",
        "\"reception\" is not one mail address",
        "\"de_CH\" is no language tag",
        "closing quote",
        "no date and time",
        "\"an hour\" is not a number",
        "\"ja\" is neither",
    ];
    for (fault, word) in faults.iter().zip(words) {
        assert!(fault.contains(word), "{fault:?} should say {word:?}");
    }
}

#[test]
fn names_of_columns_are_taken_as_people_write_them() {
    for name in [
        "userPrincipalName",
        "UPN",
        "upn",
        "UserName",
        "User principal name",
        "User Name",
        "Username",
        "user_principal_name",
        "user-name",
        "User name [userPrincipalName] Required",
    ] {
        let (header, rows) = good(format!("x,{name}\n1,a@b.c\n").as_bytes());
        assert_eq!(header.index(Column::Upn), Some(1), "{name}");
        assert_eq!(header.value(&rows[0].cells, "userprincipalname"), Some("a@b.c"), "{name}");
    }
    let (header, _) = good(b"UPN,userPrincipalName,Start,Lifetime\nx,a@b.c,,\n");
    assert_eq!(header.index(Column::Upn), Some(1), "the exact name wins");
    assert_eq!(header.index(Column::LifetimeInMinutes), Some(3));
    let text = refused(b"UPN,User Name\na@b.c,a@b.c\n");
    assert!(text.contains("\"UPN\" and \"User Name\" could both be userPrincipalName"), "{text}");
    let text = refused(b"UPN,start,Start\na@b.c,,\n");
    assert!(text.contains("startDateTime"), "{text}");
}

#[test]
fn lines_that_spreadsheets_and_templates_put_first_are_skipped() {
    let (header, rows) = good(b"version:v1.0,,\r\nName [displayName],User name [userPrincipalName] Required,x\r\nA,a@b.c,\r\n");
    assert_eq!((header.line(), rows[0].line), (Line(2), Line(3)));
    let (header, rows) = good(b"sep=;\r\nupn;\"a,b,c,d\"\r\na@b.c;1\r\n");
    assert_eq!((header.delimiter(), rows[0].line), (Delimiter::Semicolon, Line(3)));
    assert!(refused(b"sep=|\nupn|x\n").contains("commas, semicolons, or tabs"));
    let (header, _) = good(b"userPrincipalName;Name, first, title\na@b.c;x\n");
    assert_eq!(header.delimiter(), Delimiter::Semicolon, "the UPN decides, not the commas");
}

#[test]
fn lines_are_those_an_editor_shows() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["", "upn,x", "a@b.c,\"1", "2\"", "", ",", "b@b.c,", "c@b.c,"].join(end);
        let (_, rows) = good(text.as_bytes());
        let lines: Vec<u64> = rows.iter().map(|row| row.line.0).collect();
        assert_eq!(lines, [3, 7, 8], "{end:?}");
        assert_eq!(rows[0].cells[1], format!("1{end}2"));
    }
}

#[test]
fn what_is_no_wave_is_refused_by_name() {
    for (bytes, words) in [
        (&b""[..], "the wave is empty"),
        (b"\xEF\xBB\xBF\n\n", "the wave is empty"),
        (b"upn\n\n", "no rows"),
        (b"a@b.c\nb@b.c\n", "line 1 holds a person"),
        (b"mail,User Principle Name\n", "rename \"User Principle Name\" to userPrincipalName"),
        (b"mail,name\n", "only \"mail\", \"name\"; rename the column"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"upn\na@b.c\nb\0@b.c\n", "line 3 holds a NUL"),
        (b"upn,x\na@b.c,\"1\n2\n3", "opened in line 2 is never closed"),
        (b"\xEF\xBB\xBFupn,x\na@b.c,\xE9\n", "line 2 holds bytes that are not UTF-8"),
        (b"\xFF\xFEu\0p\0n\0\n\0a\0@\0b\0\n\0x", "line 3 holds bytes that are not UTF-16LE"),
    ] {
        let text = refused(bytes);
        assert!(text.contains(words), "{text:?} should say {words:?}");
    }
}

#[test]
fn each_bound_is_held_and_named() {
    let narrow = Bounds { rows: 2, bytes: 64, field: 10, columns: 3 };
    let read = |text: &str| -> WaveError {
        let input = Cursor::new(text.as_bytes().to_vec());
        WaveReader::open_within(input, Defaults::default(), narrow)
            .and_then(WaveReader::finish)
            .expect_err("over a bound")
    };
    assert!(matches!(read("upn\na@b\nb@b\nc@b\n"), WaveError::TooManyRows(2)));
    assert!(matches!(read(&"u".repeat(65)), WaveError::TooLarge(64)));
    let error = read("upn\n\na@b.ccccccc\n");
    assert!(matches!(error, WaveError::FieldTooLong { line: Line(3), max: 10 }));
    assert!(matches!(read("upn,,,\n"), WaveError::TooManyColumns { line: Line(1), max: 3 }));
    assert!(WaveError::TooManyRows(limits::MAX_ROWS).to_string().contains("1,000,000 rows"));
}

#[test]
fn western_bytes_are_taken_as_windows_1252_and_this_is_told() {
    let (header, rows) = good(b"upn,name\na@b.c,J\xFCrgen \x80\n");
    assert_eq!(header.encoding(), Encoding::Windows1252);
    assert_eq!(rows[0].cells[1], "Jürgen €");
}

#[test]
fn a_message_shows_no_escape_codes_and_no_secret() {
    let faults = faults(
        b"upn,lifetime,recipient\na\x1b[31m@b.c,\x1b]0;x,AGE-SECRET-KEY-1QQ\nb\xE2\x80\x8B@b.c,,\n",
    );
    assert!(faults.iter().all(|text| !text.contains('\x1b') && !text.contains("1QQ")));
    assert!(faults[0].contains("\\u{1b}[31m") && faults[3].contains("cannot be seen"));
    assert_eq!(faults.len(), 4);
    assert!(shown(&"x".repeat(1000)).chars().count() < limits::MAX_SHOWN_CHARS + 4);
}

#[test]
fn a_faulty_row_still_counts_as_the_first_of_two() {
    let faults = faults(b"upn,lifetime\na@b.c,1\nA@B.C,60\n");
    assert!(faults[1].contains("line 3, column \"upn\": this person is already in line 2"));
}

#[test]
fn a_start_is_one_moment_or_a_fault() {
    let zone = parse_zone("europe/berlin").expect("a zone");
    let start = |text: &str| parse_start(text, Some(&zone));
    for text in
        ["2027-03-01T08:00", "2027-03-01 08:00:00", "2027-03-01T07:00Z", "2027-03-01t08:00+01:00"]
    {
        assert_eq!(start(text).map(|at| at.to_string()).as_deref(), Ok("2027-03-01T07:00:00Z"));
    }
    assert!(matches!(start("2027-03-28T02:30"), Err(BadStart::Gap(..))));
    assert!(matches!(start("2027-10-31T02:30"), Err(BadStart::Fold(..))));
    assert!(start("2027-10-31T02:30+01:00").is_ok());
    assert!(matches!(start("2027-03-01"), Err(BadStart::DateAlone(_))));
    for text in ["02/03/2026", "2.3.2026 08:00", "1-2-26"] {
        assert!(matches!(start(text), Err(BadStart::TwoReadings(_))), "{text}");
    }
    for text in ["2027-02-30T08:00", "2027-01-01T25:00", "2027-01-01T08:00+99:00"] {
        assert!(matches!(start(text), Err(BadStart::Impossible(_))), "{text}");
    }
    for text in ["soon", "46082.33", "2027-03-01T08:00 CET", "2027-03-01T08:00[Asia/Tokyo]"] {
        assert!(matches!(start(text), Err(BadStart::Unreadable(_))), "{text}");
    }
    assert!(matches!(parse_start("2027-03-01T08:00", None), Err(BadStart::NoZone(_))));
}

#[test]
fn a_wave_that_changes_between_the_looks_is_refused() {
    let mut reader =
        WaveReader::open(Cursor::new(b"upn\na@b.c\n"), Defaults::default()).expect("ok");
    reader.digest[0] ^= 1;
    assert!(matches!(reader.finish(), Err(WaveError::Changed)));
}

fn rejected(bytes: &[u8]) -> Vec<u8> {
    let (header, found) = all_of(bytes).expect("a readable wave");
    let mut rejects = Rejects::new(Vec::new(), &header).expect("memory");
    for found in &found {
        if let WaveItem::Bad(bad) = found {
            rejects.add_bad(bad).expect("memory");
        }
    }
    rejects.finish().expect("memory")
}

#[test]
fn rejects_stay_faults_until_mended() {
    let first = rejected(include_bytes!("../../../../samples/mistakes.csv"));
    // Two are gone: the other half of the duplicate is not in the file, and the
    // stray quote's text is now quoted as it stood.
    assert_eq!(faults(&first).len(), 19);
    assert!(String::from_utf8_lossy(&first).starts_with("reason,userPrincipalName,"));
    let second = rejected(&first);
    let cells = |bytes: &[u8]| -> Vec<Vec<String>> {
        let (_, found) = all_of(bytes).expect("readable");
        let bad = found.into_iter().filter_map(|found| match found {
            WaveItem::Row(_) => None,
            WaveItem::Bad(bad) => Some(bad.cells[1..].to_vec()),
        });
        bad.collect()
    };
    assert_eq!(cells(&first), cells(&second));
}

#[test]
fn a_reason_is_no_formula_and_a_cell_is_left_alone() {
    let (header, _) = good(b"upn;\"a,b\"\na@b.c;x\n");
    let mut rejects = Rejects::new(Vec::new(), &header).expect("memory");
    rejects.add(&["a@b.c".into(), "=1+1".into()], "=cmd()\n2").expect("memory");
    let text = String::from_utf8(rejects.finish().expect("memory")).expect("UTF-8");
    assert_eq!(text, "\"reason\";\"upn\";\"a,b\"\n'=cmd() 2;a@b.c;=1+1\n");
}

#[test]
fn header_and_options_survive_the_ledger() {
    let (header, rows) = good(include_bytes!("../../../../samples/new-starters.csv"));
    let text = serde_json::to_string(&(&header, &rows[0].wanted)).expect("JSON");
    assert!(text.contains("\"userPrincipalName\":0") && text.contains("\"timeZone\":"), "{text}");
    let back: (Header, RowOptions) = serde_json::from_str(&text).expect("JSON");
    assert_eq!(back, (header, rows[0].wanted.clone()));
}

#[test]
fn a_hundred_thousand_rows_stream() {
    let mut text = String::from("userPrincipalName,displayName\n");
    for n in 0..100_000 {
        let _ = writeln!(text, "person{n}@contoso.example,Person {n}");
    }
    let mut reader = WaveReader::open(Cursor::new(text), Defaults::default()).expect("readable");
    assert_eq!(
        reader.by_ref().filter(|found| matches!(found, Ok(WaveItem::Row(_)))).count(),
        100_000
    );
    assert_eq!(reader.finish().expect("whole").rows, 100_000);
}

/// Gives one byte at a time, so that every character and line end is cut somewhere.
struct Drip<'a>(Cursor<&'a [u8]>);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

impl Seek for Drip<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn it_does_not_matter_where_the_bytes_are_cut() {
    for bytes in [
        &include_bytes!("../../../../samples/excel-export.csv")[..],
        include_bytes!("../../../../samples/utf16.csv"),
        include_bytes!("../../../../samples/mistakes.csv"),
        b"\r\n\r\nupn,x\r\na@b.c,\"1\r\n\"\"2\"\r\n\r\nb@b.c,\xE9\xE9",
    ] {
        let drip = Drip(Cursor::new(bytes));
        let mut reader = WaveReader::open(drip, Defaults::default()).expect("readable");
        let found = reader.by_ref().collect::<Result<Vec<_>, _>>().expect("readable");
        let wave = reader.finish().expect("whole");
        assert_eq!((wave.header, found), all_of(bytes).expect("readable"));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = all_of(&bytes);
        let _ = all_of(&[b"upn,start,timezone\n", &bytes[..]].concat());
    }

    #[test]
    fn no_text_makes_it_panic_and_rejects_read_back(
        text in "[a-c@,;\t\"\r\n =é0-9:T-]{0,200}"
    ) {
        let wave = format!("upn,start,lifetime\n{text}");
        if let Ok((_, found)) = all_of(wave.as_bytes()) {
            let bad = found.iter().filter(|found| matches!(found, WaveItem::Bad(_))).count();
            if bad > 0 {
                let (_, again) = all_of(&rejected(wave.as_bytes())).expect("rejects are a wave");
                prop_assert_eq!(again.len(), bad);
            }
        }
    }

    #[test]
    fn what_was_written_is_read(
        cells in proptest::collection::vec("[ -~éß\n\r\t\"€]{0,12}", 1..12),
        delimiter in prop_oneof![Just(b','), Just(b';'), Just(b'\t')],
        form in 0..6,
    ) {
        let mut out = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
        out.write_record(["userPrincipalName", "note"]).expect("memory");
        for (n, cell) in cells.iter().enumerate() {
            out.write_record([&format!("p{n}@contoso.example"), cell]).expect("memory");
        }
        let text = String::from_utf8(out.into_inner().expect("memory")).expect("UTF-8");
        let bytes = match form {
            0 => text.into_bytes(),
            1 => format!("\u{feff}{text}").into_bytes(),
            2 => utf16(&format!("\u{feff}{text}"), false),
            3 => utf16(&format!("\u{feff}{text}"), true),
            4 => utf16(&text, false),
            _ => encoding_rs::WINDOWS_1252.encode(&format!("{text}pé@contoso.example{}é\n",
                char::from(delimiter))).0.into_owned(),
        };
        let (_, rows) = good(&bytes);
        let read: Vec<&String> = rows.iter().map(|row| &row.cells[1]).take(cells.len()).collect();
        prop_assert_eq!(read, cells.iter().collect::<Vec<_>>());
    }
}
