use super::*;

/// A directory of plain files that looks like a small hierarchy; removed on drop.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("chaos-cgroup-test-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        Self(root)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_path_is_relative_to_the_mount_however_it_is_written() {
    let tree = Tree::new("resolve");
    let hierarchy = Hierarchy::at(&tree.0);
    let id = fs::metadata(tree.0.join("a/b")).unwrap().ino();
    let wanted = CgroupRef { path: "/a/b".into(), id, level: 2 };
    for path in ["/a/b", "a/b", "./a//b/", tree.0.join("a/b").to_str().unwrap()] {
        assert_eq!(hierarchy.resolve(Path::new(path)).unwrap(), wanted, "{path}");
    }
    let root = hierarchy.resolve(Path::new("/")).unwrap();
    assert_eq!((root.path.as_path(), root.level), (Path::new("/"), 0));
}

#[test]
fn what_is_no_cgroup_is_refused_with_the_reason() {
    let tree = Tree::new("refuse");
    fs::write(tree.0.join("a/cgroup.procs"), "").unwrap();
    let hierarchy = Hierarchy::at(&tree.0);
    let missing = hierarchy.resolve(Path::new("/a/c")).unwrap_err();
    assert!(
        matches!(missing, CgroupError::NotFound { .. }) && missing.to_string().contains("find "),
        "{missing}"
    );
    for path in ["../a", "/a/../../etc", "/a/cgroup.procs"] {
        let error = hierarchy.resolve(Path::new(path)).unwrap_err();
        assert!(matches!(error, CgroupError::NotACgroup { .. }), "{path}: {error}");
    }
}

#[test]
fn the_depth_counts_from_the_real_root_or_is_refused() {
    let tree = Tree::new("level");
    let bound = Hierarchy { mount: tree.0.clone(), base: "/docker/abc".into() };
    assert_eq!(bound.resolve(Path::new("/a/b")).unwrap().level, 4);
    fs::write(tree.0.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    let namespaced = Hierarchy::at(&tree.0).resolve(Path::new("/a")).unwrap_err();
    assert!(matches!(namespaced, CgroupError::Namespaced { .. }), "{namespaced}");
    let above = Hierarchy { mount: tree.0.clone(), base: "/../..".into() };
    assert!(matches!(above.resolve(Path::new("/a")).unwrap_err(), CgroupError::Namespaced { .. }));
}

#[test]
fn pids_of_a_subtree_are_listed() {
    let tree = Tree::new("pids");
    fs::write(tree.0.join("a/cgroup.procs"), "12\n").unwrap();
    fs::write(tree.0.join("a/b/cgroup.procs"), "13\n14\n").unwrap();
    let mut pids = Hierarchy::at(&tree.0).pids(Path::new("/a")).unwrap();
    pids.sort_unstable();
    assert_eq!(pids, [12, 13, 14]);
}

#[test]
fn the_owner_is_read_from_the_name() {
    assert_eq!(owner("chaos-exec-12-3456"), Some((12, 3456)));
    assert_eq!(owner("chaos-exec-12-3456-2"), Some((12, 3456)));
    for other in ["chaos-exec-", "chaos-exec-x-1", "chaos-exec-12", "user-chaos-exec-1-2"] {
        assert_eq!(owner(other), None, "{other}");
    }
}

#[test]
fn only_cgroups_whose_owner_is_gone_are_swept() {
    let tree = Tree::new("sweep");
    let pid = std::process::id().cast_signed();
    let alive = format!("chaos-exec-{pid}-{}", start_time_ticks(pid).unwrap());
    let reused = format!("chaos-exec-{pid}-1");
    for name in
        [alive.as_str(), reused.as_str(), "a/b/chaos-exec-999999999-5/made-by-command", "other-999999999-5"]
    {
        fs::create_dir_all(tree.0.join(name)).unwrap();
    }
    let mut swept = Hierarchy::at(&tree.0).sweep_stale();
    swept.sort();
    assert_eq!(swept, [tree.0.join("a/b/chaos-exec-999999999-5"), tree.0.join(&reused)]);
    assert!(tree.0.join(&alive).exists() && tree.0.join("other-999999999-5").exists());
}

#[test]
fn a_populated_cgroup_stays() {
    let tree = Tree::new("populated");
    fs::write(tree.0.join("a/cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    assert_eq!(remove_if_empty(&tree.0.join("a")).unwrap(), Removal::Populated);
    assert!(tree.0.join("a/b").exists());
    assert_eq!(remove_if_empty(&tree.0.join("gone")).unwrap(), Removal::Removed);
}

#[test]
fn a_transient_cgroup_is_named_after_us_and_gone_afterwards() {
    let tree = Tree::new("transient");
    let hierarchy = Hierarchy::at(&tree.0);
    let planned = Transient::planned(&hierarchy, Path::new("/a")).unwrap();
    let first = Transient::create(&hierarchy, planned).unwrap();
    let second =
        Transient::create(&hierarchy, Transient::planned(&hierarchy, Path::new("/a")).unwrap()).unwrap();
    assert_ne!(first.directory(), second.directory());
    assert_eq!(first.cgroup().level, 2);
    let directories = [first.directory().to_path_buf(), second.directory().to_path_buf()];
    assert!(directories.iter().all(|directory| directory.exists()));
    drop((first, second));
    assert!(!directories.iter().any(|directory| directory.exists()));
}
