//! Questions to an agent.

use std::{io, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use ureq::{
    Agent,
    http::{Method, Request, Response},
};

use crate::{
    Error, Events, Fault, FaultView, NewFault, Place, Problem, Removed, Stats, Status,
    transport::{NoNames, Socket},
};

/// Arming a fault for the first time takes some 100 ms, and names may have to be resolved.
const LIMIT: Duration = Duration::from_secs(30);
/// What connecting to a place says where nobody listens.
const NOBODY: [io::ErrorKind; 2] = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
/// A list of faults with their counters is far below.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Asks one agent. Clones share its connections; calls may come from several threads at once.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    place: Place,
    limit: Duration,
}

impl Client {
    /// The agent that the environment names, see [`Place::from_env`]. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn from_env() -> Result<Self, Error> {
        Self::new(Place::from_env()?)
    }

    /// The agent at this place. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Setting`]: with the feature `tls`, the file of certificates cannot be read.
    pub fn new(place: Place) -> Result<Self, Error> {
        // A refusal is an answer; and a proxy of the environment is not meant for an agent.
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).max_redirects(0);
        let agent = match &place {
            Place::Socket(path) => Agent::with_parts(config.build(), Socket(path.clone()), NoNames),
            #[cfg(not(feature = "tls"))]
            Place::Url { .. } => Agent::new_with_config(config.build()),
            #[cfg(feature = "tls")]
            Place::Url { .. } => Agent::new_with_config(crate::tls::secured(config)?.build()),
        };
        Ok(Self { agent, place, limit: LIMIT })
    }

    /// Waits at most so long for an answer; 30 s unless told.
    #[must_use]
    pub const fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Whom it asks.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// How the agent is.
    ///
    /// # Errors
    /// Those of [`Self::ask`], as for everything below.
    pub fn status(&self) -> Result<Status, Error> {
        self.ask("GET", "/v1/status", None)
    }

    /// Every fault that the agent knows, those that ended included.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn list(&self) -> Result<Vec<FaultView>, Error> {
        #[derive(serde::Deserialize)]
        struct List {
            faults: Vec<FaultView>,
        }
        self.ask("GET", "/v1/faults", None).map(|List { faults }| faults)
    }

    /// The fault with this number or name.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn show(&self, id: &str) -> Result<FaultView, Error> {
        self.ask("GET", &path_of(id, ""), None)
    }

    /// Its counters.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn stats(&self, id: &str) -> Result<Stats, Error> {
        self.ask("GET", &path_of(id, "/stats"), None)
    }

    /// Sets a fault that nobody holds: it lasts until its time is over or it is removed.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn create(&self, fault: &NewFault) -> Result<FaultView, Error> {
        self.ask("POST", "/v1/faults", Some(&to_value(fault)))
    }

    /// Sets a fault and keeps it until the handle goes. When this returns, the kernel has it.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn hold(&self, fault: NewFault) -> Result<Fault, Error> {
        Fault::hold(self, fault)
    }

    /// Checks a fault and sets nothing.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn validate(&self, fault: &NewFault) -> Result<Value, Error> {
        self.ask("POST", "/v1/faults:validate", Some(&to_value(fault)))
    }

    /// What a fault would do, in words and places; sets nothing.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn explain(&self, fault: &NewFault) -> Result<Value, Error> {
        self.ask("POST", "/v1/faults:explain", Some(&to_value(fault)))
    }

    /// Who a target talks to now: `flows`, one socket each, and `conversations`.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn flows(&self, target: &str) -> Result<Value, Error> {
        self.ask("GET", &format!("/v1/flows?target={}", encoded(target)), None)
    }

    /// Its lease begins anew.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn renew(&self, id: &str) -> Result<FaultView, Error> {
        self.ask("POST", &path_of(id, "/renew"), None)
    }

    /// Ends it; what it was, with its last counters. One that has ended already is no error.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn remove(&self, id: &str) -> Result<FaultView, Error> {
        self.ask("DELETE", &path_of(id, ""), None)
    }

    /// Ends every fault of this agent.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn remove_all(&self) -> Result<Removed, Error> {
        self.ask("DELETE", "/v1/faults", None)
    }

    /// What happens from now on, and before it what came after the event `after`: an id of [`Events::last_id`], or 0
    /// for all that is remembered. Only about `fault`, a number or a name, if one is given. With `quiet` the stream
    /// ends with [`Error::Silent`] when nothing happened for so long.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn events(
        &self,
        fault: Option<&str>,
        after: Option<&str>,
        quiet: Option<Duration>,
    ) -> Result<Events, Error> {
        self.stream(&[("fault", fault), ("after", after)], quiet)
    }

    /// Samples of the packets that a fault affects, from now on: its number or its name.
    #[expect(clippy::missing_errors_doc, reason = "see `status`")]
    pub fn packets(&self, fault: &str) -> Result<Events, Error> {
        self.stream(&[("fault", Some(fault)), ("kind", Some("packet"))], None)
    }

    fn stream(&self, words: &[(&str, Option<&str>)], quiet: Option<Duration>) -> Result<Events, Error> {
        let given = words.iter().filter_map(|(name, word)| Some(format!("{name}={}", encoded((*word)?))));
        let path = format!("/v1/events?{}", given.collect::<Vec<_>>().join("&"));
        let mut response = self.request("GET", &path, None, |config| {
            config.timeout_recv_response(Some(self.limit)).timeout_per_read(quiet).build()
        })?;
        if response.status().is_success() {
            return Ok(Events::new(self.clone(), response.into_body().into_reader()));
        }
        Err(self.refusal(&mut response))
    }

    /// Any question of the API; `path` begins with a `/` and is encoded as a URL wants it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the agent's own words; otherwise there was no answer.
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let mut response =
            self.request(method, path, body, |config| config.timeout_global(Some(self.limit)).build())?;
        let garbled =
            |error: serde_json::Error| Error::Garbled { place: self.place.clone(), what: error.to_string() };
        if !response.status().is_success() {
            return Err(self.refusal(&mut response));
        }
        serde_json::from_slice(&self.bytes(&mut response)?).map_err(garbled)
    }

    fn bytes(&self, response: &mut Response<ureq::Body>) -> Result<Vec<u8>, Error> {
        let read = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        read.map_err(|error| self.failure(error, self.limit))
    }

    /// Why the agent says no.
    fn refusal(&self, response: &mut Response<ureq::Body>) -> Error {
        let status = response.status();
        let bytes = match self.bytes(response) {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        let problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            detail: String::from_utf8_lossy(&bytes).trim().to_owned(),
            ..Problem::default()
        });
        Error::Refused(Box::new(problem))
    }

    /// A stream that ended in the middle.
    pub(crate) fn broken(&self, error: io::Error) -> Error {
        self.failure(ureq::Error::from(error), self.limit)
    }

    /// The answer's head has come when this returns.
    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        limits: impl FnOnce(Limits) -> Request<String>,
    ) -> Result<Response<ureq::Body>, Error> {
        let setting = |what: String| Error::Setting(what);
        let method: Method =
            method.parse().map_err(|_| setting(format!("`{method}` is no method of HTTP")))?;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.place.base()));
        if let Place::Url { key: Some(key), .. } = &self.place {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request =
            request.body(text).map_err(|error| setting(format!("`{path}` cannot be asked: {error}")))?;
        let request = limits(self.agent.configure_request(request));
        self.agent.run(request).map_err(|error| self.failure(error, self.limit))
    }

    fn failure(&self, error: ureq::Error, limit: Duration) -> Error {
        let place = self.place.clone();
        if let ureq::Error::Timeout(_) = error {
            return Error::Silent { place, limit };
        }
        let ureq::Error::Io(error) = error else {
            return Error::Garbled { place, what: error.to_string() };
        };
        if NOBODY.contains(&error.kind()) {
            Error::Absent { place, error }
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            Error::Denied { place }
        } else {
            Error::Garbled { place, what: error.to_string() }
        }
    }
}

/// How long things may take, yet to be said.
type Limits = ureq::config::ConfigBuilder<ureq::typestate::HttpCrateScope<String>>;

/// `/v1/faults/{id}` and what follows.
fn path_of(id: &str, rest: &str) -> String {
    format!("/v1/faults/{}{rest}", encoded(id))
}

/// What a URL cannot hold is encoded (RFC 3986, section 2.1).
fn encoded(word: &str) -> String {
    word.bytes()
        .map(|byte| {
            let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if is_plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        })
        .collect()
}

fn to_value(fault: &impl Serialize) -> Value {
    // A map of values: it cannot fail.
    serde_json::to_value(fault).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        assert_eq!(path_of("7", "/stats"), "/v1/faults/7/stats");
        assert_eq!(path_of("../stop?x#y", ""), "/v1/faults/..%2Fstop%3Fx%23y");
    }

    #[test]
    fn nobody_there_is_told_from_nobody_left() {
        let folder = std::env::temp_dir().join(format!("chaos-client-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("agent.sock");
        let status =
            || Client::new(Place::Socket(path.clone())).unwrap().status().expect_err("nobody answers");
        assert!(matches!(status(), Error::Absent { error, .. } if error.kind() == io::ErrorKind::NotFound));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(
            matches!(status(), Error::Absent { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused)
        );
        std::fs::remove_file(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let limit = Duration::from_millis(100);
        let silent = Client::new(Place::Socket(path.clone())).unwrap().with_limit(limit).status();
        assert!(matches!(silent, Err(Error::Silent { limit: l, .. }) if l == limit), "{silent:?}");
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
