package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// ranges are the numbers of the faults, from the first to the last of each section.
var ranges = [][2]int{{1, 9}, {10, 15}, {20, 27}, {30, 32}, {33, 39}, {40, 43}, {50, 62}, {70, 79}}

// An entry of the list says what shows what a fault does.
type entry struct {
	number int
	fault  string
	tests  []string // a folder of the repository, with a space and a name for a test, or else for a program; none for a scenario
}

// tested are the faults that tests and other programs of the repository show, and not a
// scenario.
var tested = []entry{
	{13, "failover to a replica that lags", []string{"contrib/sqlkeys TestRevokedKeyStaysRefusedAfterAFailover"}},
	{25, "instances share one sender, below, at and above its limit", []string{"contrib/redislimit TestInstances", "contrib/redislimit TestSimulation"}},
	{26, "clocks of Redis and of the instances differ", []string{"contrib/redislimit TestRedisSeesNoClockAndNoKey"}},
	{30, "wall clock set forward or back: buckets", []string{
		". TestClockThatStepsBackNeitherFillsNorBlocks", "contrib/redislimit TestClockStepsBackALittle", "contrib/redislimit TestClockStepsBackFar",
	}},
	{31, "wall clock set forward or back: expired keys", []string{
		". TestCacheNeverOutlivesExpires", ". TestCacheComparesExpiresByTheCalendar", ". TestSleepOfTheMachineCountsTowardsTTL",
	}},
	{40, "keys in outputs", []string{". TestNoPartOfAKeyIsShownAnywhere", "contrib/conformance TestNoOutputHoldsAKey"}},
	{41, "keys in memory", []string{". TestNoKeyIsKept", "contrib/faults/heap TestHeapHoldsNoKey"}},
	{42, "secrets in the time of a refusal", []string{"contrib/faults/timing", "contrib/faults/timing TestPlantedLeakIsFound"}},
	{61, "more parallel requests than the burst", []string{". TestParallelRequestsAdmitExactlyTheBurst", "contrib/redislimit TestExactlyTheBurst"}},
	{62, "two limits, one of them used up", []string{". TestSeveralLimits"}},
	{76, "soak", []string{"contrib/faults/soak", "contrib/faults/soak TestNoAnswerIsWrong"}},
	{78, "any bytes as a request", []string{". FuzzWrap"}},
	{79, "random schedules against a model", []string{
		". TestGuardFollowsTheModel",
		". TestCacheRandomSchedules", ". TestLimitsOfAnySizeMintNothing", "contrib/redislimit TestSimulation",
	}},
}

// entries returns the list of all faults that something shows, in the order of the numbers.
func entries() []entry {
	list := slices.Clone(tested)
	for _, s := range all() {
		for id := range strings.SplitSeq(s.id, ", ") {
			e := entry{fault: s.name}
			fmt.Sscanf(id, "F-%d", &e.number)
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.number, b.number) })
	return list
}

// list returns the list for README.md.
func list() string {
	var b strings.Builder
	b.WriteString("| Number | Fault | Shown by |\n|---|---|---|\n")
	for _, e := range entries() {
		by := "scenario"
		if len(e.tests) > 0 {
			by = "`" + strings.Join(e.tests, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| F-%d | %s | %s |\n", e.number, e.fault, by)
	}
	return b.String()
}
