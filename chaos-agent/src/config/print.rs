//! `--print-config`: the configuration in effect, as a file that gives the same.

use std::fmt::Write as _;

use super::{Loaded, SETTINGS, When};

impl Loaded {
    /// TOML, every value with what it does and where it came from.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::from(
            "# The configuration of `chaos agent`: flag before environment before file before default.\n",
        );
        let mut section = "";
        for (index, setting) in SETTINGS.iter().enumerate() {
            let (of, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
            if of != section {
                let _ = writeln!(text, "\n[{of}]");
                section = of;
            }
            let when = match setting.when {
                When::Reload => "",
                When::Start => "; changes when the agent starts again",
            };
            // Formatting into a String cannot fail.
            let _ = writeln!(text, "\n# {}.", setting.help);
            let _ = writeln!(text, "# from: {}{when}", self.origin_of(index, setting));
            let _ = writeln!(text, "{key} = {}", (setting.show)(&self.config));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::*;

    fn sources(file: &std::path::Path, flags: Vec<(&'static str, String)>) -> Sources {
        let variables = |name: &str| match name {
            "CHAOS_MAX_FAULTS" => Some("7".to_owned()),
            "CHAOS_MAX_TARGETS" => Some("8".to_owned()),
            _ => None,
        };
        Sources { file: Some(file.to_owned()), flags, variables }
    }

    fn written(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("chaos-config-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn flag_before_environment_before_file_before_default() {
        let file =
            written("order", "max_faults = 1\nmax_targets = 1\nmax_duration = \"5m\"\n[log]\njson = true\n");
        let loaded = sources(&file, vec![("max_faults", "9".to_owned())]).load().unwrap();
        let config = &loaded.config;
        assert_eq!(
            (config.max_faults, config.max_targets, config.max_duration),
            (9, 8, Duration::from_mins(5))
        );
        assert!(config.log_json && config.socket == Config::default().socket);
        let text = loaded.toml();
        for says in [
            "# from: --max-faults\nmax_faults = 9\n".to_owned(),
            "# from: CHAOS_MAX_TARGETS\nmax_targets = 8\n".to_owned(),
            format!("# from: {}, line 3\nmax_duration = \"5m\"\n", file.display()),
            "# from: default; changes when the agent starts again\nsocket = \"/run/chaos/agent.sock\"\n"
                .to_owned(),
        ] {
            assert!(text.contains(&says), "{says}\nis not in\n{text}");
        }
        // What was printed gives the same.
        fs::write(&file, &text).unwrap();
        let again = Sources { variables: |_| None, ..sources(&file, Vec::new()) }.load().unwrap();
        assert_eq!(again.config, loaded.config);
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line() {
        for (text, says) in [
            ("max_faults = 1\nmax_fault = 1\n", "line 2: there is no setting `max_fault`; there are socket"),
            (
                "\n[limits]\nbody = 1\n",
                "line 3: there is no setting `limits.body`; there are limits.body_bytes",
            ),
            ("[nothing]\nx = 1\n", "line 1: there is no setting `nothing`"),
            ("max_faults = \"1\"\n", "line 1: `max_faults`: a whole number"),
            ("max_faults = -1\n", "line 1: `max_faults`: write a whole number from 0"),
            ("listen = 8473\n", "a text in quotes"),
            ("[protect]\nlocal_ports = [22, 70000]\n", "line 2: `protect.local_ports`: `70000`"),
            ("max_faults = \n", "line 1: "),
        ] {
            let file = written("wrong", text);
            let error = sources(&file, Vec::new()).load().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
            fs::remove_file(&file).unwrap();
        }
        let gone = sources("/nonexistent/agent.toml".as_ref(), Vec::new()).load().expect_err("no file");
        assert!(gone.to_string().contains("/nonexistent/agent.toml"), "{gone}");
    }
}
