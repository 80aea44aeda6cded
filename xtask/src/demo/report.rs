//! The demo on paper: `demo.json`, `demo.md`, `demo.svg`.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    checks::Check,
    plot, screen,
    story::{Played, Seen},
};

/// Writes the three files into `dir`.
pub(crate) fn write(dir: &Path, seen: &[Seen], played: &[Played], checks: &[Check]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let passed = checks.iter().all(|check| check.ok);
    let json = json!({ "passed": passed, "kernel": kernel(), "phases": played, "checks": checks });
    let put = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    put("demo.json", serde_json::to_string_pretty(&json)? + "\n")?;
    put("demo.svg", plot::svg(seen, played))?;
    put("demo.md", markdown(passed, played, checks))
}

fn markdown(passed: bool, played: &[Played], checks: &[Check]) -> String {
    let verdict = if passed {
        "every phase did what was configured"
    } else {
        "**a phase did not do what was configured**"
    };
    let mut text = format!(
        "# chaos demo\n\nTwo network namespaces, two redis servers, one client; Linux {}. Result: {verdict}.\n\n\
         ![requests per second and latency over time](demo.svg)\n\n## Phases\n\n\
         | phase | port | requests/s | errors | p50 ms | p99 ms |\n|---|---|---:|---:|---:|---:|\n",
        kernel()
    );
    for phase in played {
        for port in &phase.ports {
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {} | {} | {} |",
                phase.name,
                port.port,
                port.rate,
                port.errors,
                screen::ms(port.p50_ms),
                screen::ms(port.p99_ms)
            );
        }
    }
    text.push_str("\n## Commands\n\n");
    for phase in played {
        if let Some(command) = &phase.command {
            let _ = writeln!(
                text,
                "- {} ({:.1} to {:.1} s): `{command}`",
                phase.name, phase.begin_s, phase.end_s
            );
        }
    }
    text.push_str("\n## Checks\n\n| phase | result | what |\n|---|---|---|\n");
    for check in checks {
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            check.phase,
            if check.ok { "ok" } else { "FAILED" },
            check.what
        );
    }
    text
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}
