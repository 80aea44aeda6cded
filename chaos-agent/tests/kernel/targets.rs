//! Targets found, lost and found again. Needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use chaos_agent::{
    cgroup::Hierarchy,
    netns::Netns,
    targets::{Resolved, Target, TargetError, UnitFinder, Watcher, resolve, visible_from},
};

use crate::support::{Cgroup, NamedNetns, eventually, sh, skip, unique};

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

/// Asks every 50 ms, as the engine does, until the watcher tells of a change; also how many times it asked.
/// Counted, not timed: a busy machine makes the looks late, but not more.
fn next_change(watcher: &mut Watcher, most: usize) -> (Resolved, usize) {
    for looks in 1..=most {
        if let Some(resolved) = watcher.changed().unwrap() {
            return (resolved, looks);
        }
        sleep(Duration::from_millis(50));
    }
    panic!("no change told in {most} looks");
}

/// A restart is to be seen within 100 ms.
const AT_ONCE: usize = 2;

/// What only a thorough look notices is to be seen within 600 ms.
const SOON: usize = 12;

fn endpoints(resolved: &Resolved) -> Vec<String> {
    resolved
        .identities
        .iter()
        .map(|identity| {
            let net = identity.endpoint.net.unwrap().addr();
            identity.endpoint.ports.map_or(net.to_string(), |ports| format!("{net} {}", ports.first))
        })
        .collect()
}

/// Two namespaces joined by a pair: 10.77.0.1 and 10.77.0.2.
fn pair() -> (NamedNetns, NamedNetns) {
    let (left, right) = (NamedNetns::new(), NamedNetns::new());
    let (l, r) = (&left.0, &right.0);
    sh(&format!(
        "ip -n {l} link add eth0 type veth peer name eth0 netns {r} \
         && ip -n {l} addr add 10.77.0.1/24 dev eth0 && ip -n {r} addr add 10.77.0.2/24 dev eth0 \
         && ip -n {l} link set eth0 up && ip -n {r} link set eth0 up"
    ));
    (left, right)
}

#[test]
fn a_name_deleted_is_let_go_and_found_again() {
    if skip("targets: a name deleted is let go and found again") {
        return;
    }
    let (left, right) = pair();
    let name = left.0.clone();
    let mut watcher = Watcher::new(&target(&format!("netns:{name}"))).unwrap();
    assert_eq!(endpoints(watcher.current()), ["10.77.0.1"]);
    assert!(watcher.changed().unwrap().is_none());
    drop(left);
    let (gone, _) = next_change(&mut watcher, AT_ONCE);
    assert!(gone.is_vanished());
    assert!(watcher.changed().unwrap().is_none(), "told once");
    let peer = right.open();
    eventually("nothing keeps the namespace, so the peer's device goes", Duration::from_secs(5), || {
        let links = peer.run(|| sh("ip -o link")).unwrap();
        !links.contains("eth0")
    });
    let _again = NamedNetns::with_name(name);
    let (back, _) = next_change(&mut watcher, AT_ONCE);
    assert_eq!(back.namespaces.len(), 1);
}

#[test]
fn a_name_made_anew_between_two_looks_is_noticed() {
    if skip("targets: a name made anew between two looks is noticed") {
        return;
    }
    let first = NamedNetns::new();
    let name = first.0.clone();
    let mut watcher = Watcher::new(&target(&format!("netns:{name}"))).unwrap();
    let before = watcher.current().namespaces[0].netns.clone();
    drop(first);
    let _second = NamedNetns::with_name(name);
    let now = watcher.changed().unwrap().unwrap();
    assert_ne!(now.namespaces[0].netns, before);
}

#[test]
fn a_process_is_its_namespace_until_it_ends() {
    if skip("targets: a process is its namespace until it ends") {
        return;
    }
    let (left, _right) = pair();
    let process = left.spawn(&["sleep", "60"]);
    let netns = left.open();
    eventually("the process is inside", Duration::from_secs(2), || {
        Netns::by_pid(process.pid()).is_ok_and(|found| found == netns)
    });
    let mut watcher = Watcher::new(&target(&format!("pid:{}", process.pid()))).unwrap();
    assert_eq!(watcher.current().namespaces[0].netns, netns);
    assert!(watcher.current().cgroups.is_empty());
    drop(process);
    let (gone, _) = next_change(&mut watcher, AT_ONCE);
    assert!(gone.is_vanished());
    assert!(matches!(resolve(&target(&format!("pid:{}", i32::MAX))), Err(error) if error.is_gone()));
}

#[test]
fn a_cgroup_is_where_its_processes_are() {
    if skip("targets: a cgroup is where its processes are") {
        return;
    }
    let mount = Hierarchy::discover().unwrap().mount().to_owned();
    let (left, right) = pair();
    let group = Cgroup::new(&mount);
    let path = format!("/{}", group.path.file_name().unwrap().display());
    let mut watcher = Watcher::new(&target(&format!("cgroup:{path}"))).unwrap();
    let empty = watcher.current();
    assert_eq!(empty.cgroups[0].level, 1);
    assert_eq!(empty.namespaces[0].netns, Netns::current().unwrap());

    // A server below the cgroup, in a namespace that is wholly its own.
    let below = Cgroup::at(group.path.join("below"));
    let server = left.spawn(&["python3", "-c", SERVER]);
    below.add(server.pid());
    let (filled, _) = next_change(&mut watcher, SOON);
    eventually("python has joined", Duration::from_secs(2), || {
        resolve(&target(&format!("cgroup:{path}"))).unwrap().namespaces[0].netns == left.open()
    });
    assert_eq!(filled.cgroups[0].id, empty_id(&group.path));
    eventually("the server listens and is seen", Duration::from_secs(5), || {
        let seen = endpoints(&resolve(&target(&format!("cgroup:{path}"))).unwrap());
        seen.contains(&"10.77.0.1 7077".to_owned()) && seen.contains(&"10.77.0.1".to_owned())
    });
    // A stranger in the namespace: the addresses are no longer the cgroup's alone.
    let stranger = left.spawn(&["sleep", "60"]);
    eventually("only the ports are left", Duration::from_secs(2), || {
        !endpoints(&resolve(&target(&format!("cgroup:{path}"))).unwrap()).contains(&"10.77.0.1".to_owned())
    });
    let resolved = resolve(&target(&format!("cgroup:{path}"))).unwrap();
    let seen: Vec<String> = visible_from(&resolved, &right.open())
        .unwrap()
        .iter()
        .map(|endpoint| endpoint.net.unwrap().addr().to_string())
        .collect();
    assert_eq!(seen, ["10.77.0.1"], "every namespace has its own 127.0.0.1");
    assert!(visible_from(&resolved, &Netns::anonymous().unwrap()).unwrap().is_empty());
    drop((server, stranger, below, group));
    let gone = loop {
        let (now, _) = next_change(&mut watcher, SOON);
        if now.is_vanished() {
            break now;
        }
    };
    assert!(gone.cgroups.is_empty());
}

const SERVER: &str = "import socket,time\ns=socket.create_server(('',7077))\ntime.sleep(60)";

fn empty_id(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

/// A systemd tree of directories in the real cgroup file system (below a slice of its own), and unit files
/// beside it. In every name `@` stands for a word that no other test uses.
struct Systemd {
    word: String,
    root: PathBuf,
    unit_dir: PathBuf,
}

impl Systemd {
    fn new() -> Self {
        let word = unique("chaost");
        let root = Hierarchy::discover().unwrap().mount().join(format!("{word}.slice"));
        let unit_dir = std::env::temp_dir().join(&word);
        fs::create_dir_all(&unit_dir).unwrap();
        fs::create_dir_all(&root).unwrap();
        Self { word, root, unit_dir }
    }

    fn name(&self, name: &str) -> String {
        name.replace('@', &self.word)
    }

    fn finder(&self) -> UnitFinder {
        UnitFinder::at(Hierarchy::discover().unwrap(), vec![self.unit_dir.clone()])
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.unit_dir.join(self.name(name)), self.name(text)).unwrap();
    }

    fn unit(&self, path: &str) -> Cgroup {
        Cgroup::at(self.root.join(self.name(path)))
    }

    /// The paths below the slice, sorted.
    fn find(&self, name: &str) -> Result<Vec<String>, TargetError> {
        let base = format!("/{}.slice/", self.word);
        let mut found: Vec<String> = self
            .finder()
            .find(&self.name(name))?
            .iter()
            .map(|found| found.path.display().to_string().replace(&base, "").replace(&self.word, "@"))
            .collect();
        found.sort();
        Ok(found)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.unit_dir);
        sh(&format!("find {} -depth -type d -exec rmdir {{}} +", self.root.display()));
    }
}

#[test]
fn a_unit_is_found_with_the_sockets_that_trigger_it() {
    if skip("targets: a unit is found with the sockets that trigger it") {
        return;
    }
    let systemd = Systemd::new();
    systemd.write("@-http.socket", "[Socket]\nListenStream=80\nService=@.service\n");
    systemd.write("@.socket", "[Socket]\nListenStream=81\n");
    systemd.write("@-other.socket", "[Socket]\nListenStream=82\nService=other.service\n");
    std::os::unix::fs::symlink(
        systemd.name("@.service"),
        systemd.unit_dir.join(systemd.name("web-@.service")),
    )
    .unwrap();
    assert!(matches!(systemd.find("@"), Err(TargetError::NoUnit { .. })));

    let _sockets = ["@.socket", "@-http.socket", "@-other.socket"].map(|name| systemd.unit(name));
    assert_eq!(systemd.find("@").unwrap(), ["@-http.socket", "@.socket"]);

    let _users = systemd.unit("user-1.slice/user@1.service/app.slice/@.service");
    let _machine = systemd.unit("@.service");
    assert_eq!(systemd.find("@.service").unwrap(), ["@-http.socket", "@.service", "@.socket"]);
    assert_eq!(systemd.find("web-@").unwrap(), systemd.find("@").unwrap());
}

#[test]
fn two_users_units_of_one_name_are_ambiguous() {
    if skip("targets: two users' units of one name are ambiguous") {
        return;
    }
    let systemd = Systemd::new();
    let _one = systemd.unit("user-1.slice/user-1.service/app.slice/@.service");
    assert_eq!(systemd.find("@").unwrap().len(), 1);
    let _two = systemd.unit("user-2.slice/user-2.service/app.slice/@.service");
    let error = systemd.find("@").unwrap_err().to_string();
    assert!(error.contains("user-1.service") && error.contains("user-2.service"), "{error}");
}

#[test]
fn a_unit_that_restarts_is_bound_again_within_100_ms() {
    if skip("targets: a unit that restarts is bound again within 100 ms") {
        return;
    }
    let systemd = Systemd::new();
    let unit = systemd.unit("@.service");
    let mut watcher = Watcher::of_unit(systemd.finder(), &systemd.name("@")).unwrap();
    let first = watcher.current().cgroups[0].id;
    // Vanished and back while nobody looked, and then seen away.
    drop(unit);
    let unit = systemd.unit("@.service");
    let (restarted, _) = next_change(&mut watcher, AT_ONCE);
    assert_ne!(restarted.cgroups[0].id, first);
    drop(unit);
    let (gone, _) = next_change(&mut watcher, AT_ONCE);
    assert!(gone.is_vanished());
    let _unit = systemd.unit("@.service");
    let (back, _) = next_change(&mut watcher, AT_ONCE);
    assert!(!back.is_vanished());
}

#[test]
fn host_is_pid_1_or_says_why_not() {
    if skip("targets: host is pid 1 or says why not") {
        return;
    }
    let resolved = resolve(&Target::Host).unwrap();
    let origin = &resolved.namespaces[0].origin;
    match Netns::by_pid(1) {
        Ok(netns) => assert_eq!(resolved.namespaces[0].netns, netns),
        Err(_) => assert!(origin.contains("may not be read"), "{origin}"),
    }
}

#[test]
fn a_name_is_resolved_inside_the_targets_namespace() {
    if skip("targets: a name is resolved inside the target's namespace") {
        return;
    }
    let named = NamedNetns::new();
    let found = chaos_agent::targets::addresses_of(&target("localhost:80"), Some(&named.open())).unwrap();
    assert!(found.iter().any(|endpoint| endpoint.net.unwrap().addr().is_loopback()));
}

#[test]
fn a_peer_hears_of_a_port_opened_later() {
    if skip("targets: a peer hears of a port opened later") {
        return;
    }
    let mount = Hierarchy::discover().unwrap().mount().to_owned();
    let group = Cgroup::new(&mount);
    let named = NamedNetns::new();
    let signal = std::env::temp_dir().join(unique("chaost-listen"));
    let server = named.spawn(&["python3", "-c", LATE_SERVER, signal.to_str().unwrap()]);
    group.add(server.pid());
    let path = group.path.file_name().unwrap().display().to_string();
    eventually("it is inside", Duration::from_secs(2), || {
        Netns::by_pid(server.pid()).is_ok_and(|found| found == named.open())
    });
    let mut watcher = Watcher::new(&target(&format!("cgroup:/{path}"))).unwrap().with_identities();
    assert!(!endpoints(watcher.current()).iter().any(|seen| seen.ends_with(" 7078")));
    assert!(watcher.changed().unwrap().is_none());
    fs::write(&signal, "").unwrap();
    let (now, _) = next_change(&mut watcher, 100);
    fs::remove_file(&signal).unwrap();
    assert!(endpoints(&now).iter().any(|seen| seen.ends_with(" 7078")), "{:?}", endpoints(&now));
    drop(server);
}

/// Listens once the file named in its argument is there.
const LATE_SERVER: &str = "import os,socket,sys,time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
s=socket.create_server(('',7078))
time.sleep(60)";
