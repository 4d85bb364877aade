//! The built-in templates: three files for each of five languages and three modes, and the shared
//! parts (how to use a pass, who has it, the page around every HTML part).

macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../templates/", $name)))
    };
}

/// The page around every HTML part.
pub(super) const LAYOUT: &str = "layout.html";

/// Every built-in template, by the name that it has in a user's template folder.
pub(super) const TEMPLATES: [(&str, &str); 58] = [
    (LAYOUT, include_str!("../../../../templates/layout.html")),
    template!("holder.txt"),
    template!("holder.html"),
    template!("en/use.txt"),
    template!("en/use.html"),
    template!("en/pass/subject.txt"),
    template!("en/pass/letter.txt"),
    template!("en/pass/letter.html"),
    template!("en/sealed/subject.txt"),
    template!("en/sealed/letter.txt"),
    template!("en/sealed/letter.html"),
    template!("en/notice/subject.txt"),
    template!("en/notice/letter.txt"),
    template!("en/notice/letter.html"),
    template!("nl/use.txt"),
    template!("nl/use.html"),
    template!("nl/pass/subject.txt"),
    template!("nl/pass/letter.txt"),
    template!("nl/pass/letter.html"),
    template!("nl/sealed/subject.txt"),
    template!("nl/sealed/letter.txt"),
    template!("nl/sealed/letter.html"),
    template!("nl/notice/subject.txt"),
    template!("nl/notice/letter.txt"),
    template!("nl/notice/letter.html"),
    template!("de/use.txt"),
    template!("de/use.html"),
    template!("de/pass/subject.txt"),
    template!("de/pass/letter.txt"),
    template!("de/pass/letter.html"),
    template!("de/sealed/subject.txt"),
    template!("de/sealed/letter.txt"),
    template!("de/sealed/letter.html"),
    template!("de/notice/subject.txt"),
    template!("de/notice/letter.txt"),
    template!("de/notice/letter.html"),
    template!("fr/use.txt"),
    template!("fr/use.html"),
    template!("fr/pass/subject.txt"),
    template!("fr/pass/letter.txt"),
    template!("fr/pass/letter.html"),
    template!("fr/sealed/subject.txt"),
    template!("fr/sealed/letter.txt"),
    template!("fr/sealed/letter.html"),
    template!("fr/notice/subject.txt"),
    template!("fr/notice/letter.txt"),
    template!("fr/notice/letter.html"),
    template!("es/use.txt"),
    template!("es/use.html"),
    template!("es/pass/subject.txt"),
    template!("es/pass/letter.txt"),
    template!("es/pass/letter.html"),
    template!("es/sealed/subject.txt"),
    template!("es/sealed/letter.txt"),
    template!("es/sealed/letter.html"),
    template!("es/notice/subject.txt"),
    template!("es/notice/letter.txt"),
    template!("es/notice/letter.html"),
];
