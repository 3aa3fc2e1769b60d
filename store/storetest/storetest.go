// Package storetest is the conformance suite of the store: what an
// implementation of the contracts in the root package (remit.InventoryWriter,
// remit.InventoryReader, remit.FindingStore, remit.ActivityWriter,
// remit.ActivityReader, remit.ResponseStore) must do, whatever it keeps its
// state in. Every implementation passes all of it.
//
// Beside tables of cases there is a model, a store of a few maps that does the
// same in the simplest way; random sequences of operations are played to both,
// and every question must get the same answer from both.
package storetest

import (
	"context"
	"testing"

	"remit"
)

// Store is what the suite exercises.
type Store interface {
	remit.InventoryWriter
	remit.InventoryReader
	remit.FindingStore
	remit.ActivityWriter
	remit.ActivityReader
	remit.ResponseStore
	Close() error
}

// Reopener is a store that can be closed and opened again on what it has kept,
// which the suite then does now and then. The store is not used afterwards, the
// one returned is.
type Reopener interface {
	Reopen(t testing.TB) Store
}

// Run runs the suite. open returns a new, empty store, which the test closes.
func Run(t *testing.T, open func(t testing.TB) Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"systems":                         testSystems,
		"run needs a system":              testRunNeedsSystem,
		"invalid records":                 testInvalidRecords,
		"unchanged, changed, touched":     testTouched,
		"touched by grants and relations": testTouchedEnds,
		"the last of one ID counts":       testLastWins,
		"partial listing removes nothing": testPartialListing,
		"complete needs begin":            testCompleteNeedsBegin,
		"begin forgets":                   testBeginForgets,
		"moved between sections":          testMoved,
		"deletion":                        testDeletion,
		"a large section":                 testLargeSection,
		"history":                         testHistory,
		"since is guarded":                testSinceGuarded,
		"incarnations":                    testIncarnations,
		"times":                           testTimes,
		"hostile names":                   testHostileNames,
		"long names":                      testLongNames,
		"search":                          testSearch,
		"filters":                         testFilters,
		"filters that a kind has not":     testForeignFilters,
		"orders":                          testOrders,
		"page limits and cursors":         testCursors,
		"pages while rows come and go":    testPagesWhileWriting,
		"the past":                        testPast,
		"counts":                          testCounts,
		"concurrent runs":                 testConcurrentRuns,
		"stopped callers":                 testStoppedCaller,
		"finding life":                    testFindingLife,
		"finding suppression":             testFindingSuppression,
		"finding scope":                   testFindingScope,
		"finding filters":                 testFindingFilters,
		"finding counts":                  testFindingCounts,
		"hostile findings":                testHostileFindings,
		"finding pages":                   testFindingPages,
		"checkpoints":                     testCheckpoints,
		"activity lists":                  testActivityLists,
		"responses":                       testResponses,
		"responses that are held":         testHeldResponses,
		"response versions":               testResponseVersions,
		"response races":                  testResponseRaces,
		"response filters":                testResponseFilters,
		"response pages":                  testResponsePages,
		"invalid responses":               testInvalidResponses,
		"hostile responses":               testHostileResponses,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			t.Cleanup(func() { closeStore(t, s) })
			test(t, s)
		})
	}
	t.Run("model", func(t *testing.T) {
		t.Parallel()
		testModel(t, open(t))
	})
	t.Run("finding model", func(t *testing.T) {
		t.Parallel()
		s := open(t)
		t.Cleanup(func() { closeStore(t, s) })
		testFindingModel(t, s)
	})
}

func closeStore(t testing.TB, s Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := s.Systems(context.WithoutCancel(t.Context())); remit.KindOf(err) != remit.Unavailable {
		t.Errorf("a closed store answers %v: want it unavailable", err)
	}
}
