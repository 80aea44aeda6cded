# What the machine runs: programs of tests one after the other, each with a limit.
cd "$FOLDER" || exit 2
failed=0
# Name, seconds, command. One that was stopped or broke down has no count of its own: it is told as a test that failed.
part() {
    name=$1 limit=$2
    shift 2
    echo "-- $name"
    began=$(date +%s)
    timeout -k 5 "$limit" "$@"
    code=$?
    echo "-- $name took $(($(date +%s) - began)) s"
    case $code in
    0) return ;;
    1 | 101) ;;
    124 | 137 | 143) echo "test $name, within $limit s ... FAILED" && echo "test result: FAILED. 0 passed; 1 failed" ;;
    *) echo "test $name, which ended with $code ... FAILED" && echo "test result: FAILED. 0 passed; 1 failed" ;;
    esac
    failed=1
}
