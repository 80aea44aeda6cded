//! Flows of real sockets. Needs root.

use std::time::Duration;

use chaos_agent::{
    cgroup::Hierarchy,
    flows::{self, Direction},
    net::sockets::{State, Transport},
    targets::{Target, resolve},
};

use crate::support::{Cgroup, NamedNetns, eventually, skip};

const SERVER: &str = "import socket
s = socket.create_server(('127.0.0.1', 7079))
c = s.accept()
c[0].recv(1)";
const CLIENT: &str = "import socket, time
time.sleep(0.5)
s = socket.create_connection(('127.0.0.1', 7079))
s.recv(1)";

#[test]
fn a_connection_is_shown_from_the_side_of_the_target() {
    if skip("flows: a connection is shown from the side of the target") {
        return;
    }
    let named = NamedNetns::new();
    let group = Cgroup::new(Hierarchy::discover().unwrap().mount());
    let server = named.spawn(&["python3", "-c", SERVER]);
    group.add(server.pid());
    let client = named.spawn(&["python3", "-c", CLIENT]);

    let whole: Target = format!("netns:{}", named.0).parse().unwrap();
    let only_server: Target =
        format!("cgroup:/{}", group.path.file_name().unwrap().display()).parse().unwrap();
    eventually("all three sockets are there", Duration::from_secs(5), || {
        let found = flows::list(&resolve(&whole).unwrap()).unwrap();
        found.iter().filter(|flow| flow.state == State::Established).count() == 2
    });
    let all = flows::list(&resolve(&whole).unwrap()).unwrap();
    assert_eq!(all.len(), 3, "{all:?}");
    let outbound = all.iter().find(|flow| flow.direction == Direction::Outbound).unwrap();
    assert_eq!(outbound.peer.unwrap().to_string(), "127.0.0.1:7079");
    assert_eq!(outbound.pid, Some(client.pid()));
    assert!(outbound.command.as_ref().unwrap().starts_with("python3"), "{outbound:?}");

    let own = flows::list(&resolve(&only_server).unwrap()).unwrap();
    assert_eq!(own.len(), 2, "{own:?}");
    assert!(own.iter().all(|flow| flow.pid == Some(server.pid()) && flow.proto == Transport::Tcp));
    assert!(own.iter().all(|flow| flow.cgroup.as_deref()
        == Some(std::path::Path::new("/").join(group.path.file_name().unwrap()).as_path())));
    let inbound = own.iter().find(|flow| flow.direction == Direction::Inbound).unwrap();
    assert_eq!(inbound.local.port(), 7079);

    let shown = flows::table(&own);
    assert!(shown.contains("--peer 127.0.0.1 --local-port 7079"), "{shown}");
    let json = serde_json::to_string(&own).unwrap();
    assert!(json.contains("\"proto\":\"tcp\"") && json.contains("\"state\":\"listen\""), "{json}");
}
