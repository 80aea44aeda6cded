//! The pytest fixture, by its own example: pytest runs inside a namespace and asks an agent for faults on it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{path::Path, process::Command, time::Duration};

use chaos_tests::{
    api::Agent,
    lab::{alone, netns::Netns, process},
    require_root, require_tools, skip,
};

const LIMIT: Duration = Duration::from_mins(1);

/// The one of the user, and the one that packages of the system are for.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

fn has_pytest(python: &str) -> bool {
    let mut probe = Command::new(python);
    probe.args(["-c", "import pytest"]);
    process::output(probe, LIMIT).is_ok_and(|output| output.status.success())
}

#[test]
fn the_fixture_breaks_and_heals() {
    require_root!();
    require_tools!("python3");
    let Some(python) = PYTHONS.into_iter().find(|python| has_pytest(python)) else {
        skip!("needs pytest; `apt-get install python3-pytest` or `pip install pytest`");
    };
    let _alone = alone().unwrap();
    let netns = Netns::new().unwrap();
    netns.run("ip link set lo up").unwrap();
    let agent = Agent::start("").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/python");
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "pytest_chaos", "-p", "no:cacheprovider", "tests"]);
    pytest.current_dir(&folder).env("PYTHONPATH", &folder).env("PYTHONDONTWRITEBYTECODE", "1");
    pytest.env("CHAOS_SOCKET", agent.socket()).env_remove("CHAOS_URL");
    pytest.env("CHAOS_TARGET", format!("netns:{}", netns.name()));
    let output = process::output(netns.inside(pytest), LIMIT).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("3 passed"), "{said}");
    agent.stop().unwrap();
}
