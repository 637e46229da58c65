//! The pages of `docs/errors/`, built in, so that `calbridge explain` works wherever the program is.

macro_rules! pages {
    ($($code:literal)*) => {
        /// Every page: code and text, sorted by code. A test compares the list with the folder.
        pub const PAGES: &[(&str, &str)] = &[
            $(($code, include_str!(concat!("../../docs/errors/", $code, ".md"))),)*
        ];
    };
}

pages! {
    "CB1001" "CB1002" "CB1003" "CB1004" "CB1005" "CB1006" "CB1007" "CB1008"
    "CB1009" "CB1010" "CB1011" "CB1012" "CB1013" "CB1014" "CB1015" "CB1016"
    "CB1101" "CB1102" "CB1103" "CB1104" "CB1105" "CB1106" "CB1107" "CB1108"
    "CB1109" "CB1110" "CB1111" "CB1112" "CB1113" "CB1114" "CB1115" "CB1116"
    "CB1117" "CB1118" "CB1120" "CB1200" "CB1201" "CB1202" "CB1203" "CB1204"
    "CB1205" "CB1206" "CB1207" "CB1208" "CB1209" "CB1301" "CB1302" "CB1303" "CB1304" "CB1305"
    "CB1306" "CB1307" "CB1308" "CB1309" "CB1310" "CB1311" "CB1312" "CB1313"
    "CB1314" "CB1315" "CB1316" "CB1317" "CB1318" "CB1350" "CB1351" "CB1352"
    "CB1353" "CB1354" "CB1355" "CB1356" "CB1357" "CB1358" "CB1359" "CB1360"
    "CB1361" "CB1362" "CB1363" "CB1364" "CB1365" "CB1366" "CB1367" "CB1368"
    "CB1401" "CB1402" "CB1403" "CB1404" "CB1405" "CB1410" "CB1411" "CB1450"
    "CB1451" "CB1452" "CB1453" "CB1454" "CB2001" "CB2002" "CB2003" "CB2010"
    "CB2011" "CB2012" "CB2013" "CB2014" "CB2015" "CB2016" "CB2017" "CB2020"
    "CB2021" "CB2022" "CB2023" "CB2024" "CB2025" "CB2026" "CB2030" "CB2031"
    "CB2032" "CB2033" "CB2034" "CB2035" "CB2036" "CB2037" "CB2038" "CB2039"
    "CB2040" "CB2041" "CB2042" "CB2043" "CB2044" "CB2045" "CB2046" "CB2047"
    "CB2048" "CB2049" "CB2050" "CB2051" "CB2052" "CB2053" "CB2054" "CB2055"
    "CB2056" "CB2057" "CB2058" "CB2059" "CB2060" "CB2061" "CB2062" "CB2063"
    "CB2064" "CB2065" "CB2066" "CB2067" "CB2068" "CB2069" "CB2070" "CB2071"
    "CB2072" "CB2073" "CB2074" "CB2075" "CB2076" "CB2077" "CB2078" "CB2079"
    "CB2080" "CB2081" "CB2082" "CB2083" "CB2084"
}

/// Returns the page of a code.
pub fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use calbridge_core::reason::Reason;

    use super::*;

    #[test]
    fn every_page_of_the_folder_is_built_in_and_has_the_agreed_form() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| Some(name.strip_suffix(".md")?.to_owned()))
            .filter(|name| name.starts_with("CB"))
            .collect();
        files.sort();
        let known: Vec<&str> = PAGES.iter().map(|(code, _)| *code).collect();
        assert!(files == known, "put these codes into `pages!`, in this order:\n    \"{}\"", files.join("\" \""));
        for (code, text) in PAGES {
            assert!(text.starts_with(&format!("# {code} ")), "{code}");
            for part in ["**Means**", "**Causes**", "**Do**"] {
                assert!(text.contains(part), "{code} lacks {part}");
            }
        }
    }

    #[test]
    fn every_reason_has_a_page_that_bears_its_name() {
        for reason in Reason::ALL {
            let text = page(reason.code()).unwrap_or_else(|| panic!("{} has no page", reason.code()));
            assert_eq!(text.lines().next(), Some(format!("# {} {}", reason.code(), reason.name()).as_str()));
        }
    }
}
