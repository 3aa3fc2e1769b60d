package baseline_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/detect/baseline"
)

// The scenarios play on a Monday and the days after.
var start = time.Date(2026, time.March, 2, 0, 0, 0, 0, time.UTC)

var cluster = remit.SystemID("kubernetes", "prod")

func account(namespace, name string) remit.Ref {
	return remit.Ref{Kind: "ServiceAccount", Namespace: namespace, Name: name}
}

// does is an activity of a service account, as attribution hands it over.
func does(who remit.Ref, at time.Time, action, kind, namespace, address, agent string) remit.Activity {
	return remit.Activity{
		ID: fmt.Sprintf("%s/%s@%s", who.Name, action, at.Format(time.RFC3339)), System: cluster, Time: at,
		Identity: remit.IdentityID(cluster, who), Actor: who, Type: remit.ServiceAccount,
		Action: action, Resource: remit.Ref{Kind: kind, Namespace: namespace, Name: "x"},
		Address: address, UserAgent: agent, Outcome: remit.Allowed,
		Credential: "JTI=" + who.Name, Root: "JTI=" + who.Name,
	}
}

func person(name string, at time.Time, action, kind, namespace string) remit.Activity {
	a := does(remit.Ref{Kind: "User", Name: name}, at, action, kind, namespace, "203.0.113.7", "kubectl/v1.36.1 (linux/amd64) kubernetes/1a2b")
	a.Type = remit.Human
	return a
}

// bound makes an activity one with a token bound to a pod.
func bound(a remit.Activity, pod string) remit.Activity {
	a.Bound = remit.Ref{Kind: "Pod", Namespace: a.Actor.Namespace, Name: pod}
	a.Credential = "JTI=" + pod + a.Time.Format("150405")
	a.Root = "X509SHA256=node"
	return a
}

// renews is a kubelet that mints the token of a pod.
func renews(node, address string, at time.Time, who remit.Ref, pod string) remit.Activity {
	a := does(remit.Ref{Kind: "Node", Name: node}, at, "create", "serviceaccounts/token", who.Namespace, address,
		"kubelet/v1.36.3 (linux/amd64) kubernetes/1a2b3c")
	a.Principal = "system:node:" + node
	a.Type = remit.Workload
	a.Minted = remit.Minted{
		Credential: "JTI=" + pod + at.Format(time.RFC3339), Type: "short-lived-token", For: who,
		Bound: remit.Ref{Kind: "Pod", Namespace: who.Namespace, Name: pod}, Expires: at.Add(time.Hour),
	}
	return a
}

// mintsItself is the holder of a pod's token that mints the next one with it.
func mintsItself(who remit.Ref, pod, boundTo, address, agent string, at time.Time) remit.Activity {
	a := bound(does(who, at, "create", "serviceaccounts/token", who.Namespace, address, agent), pod)
	a.Minted = remit.Minted{Credential: "JTI=stolen" + at.Format(time.RFC3339), For: who, Expires: at.Add(time.Hour)}
	if boundTo != "" {
		a.Minted.Bound = remit.Ref{Kind: "Pod", Namespace: who.Namespace, Name: boundTo}
	}
	a.SelfMinted = true
	return a
}

type hit struct {
	a remit.Activity
	s remit.Signal
}

func (h hit) String() string {
	return fmt.Sprintf("%s %s %s %s: %s", h.s.Time.Format("Mon 15:04"), h.a.Actor.Name, h.s.Severity, h.s.Rule, h.s.Words)
}

func observe(b *baseline.Baselines, log []remit.Activity) []hit {
	slices.SortStableFunc(log, func(a, b remit.Activity) int { return a.Time.Compare(b.Time) })
	var hits []hit
	var found []remit.Signal
	for i := range log {
		found = b.Observe(&log[i], found[:0])
		for _, s := range found {
			hits = append(hits, hit{log[i], s})
		}
	}
	return hits
}

func rules(hits []hit) map[string]int {
	n := map[string]int{}
	for _, h := range hits {
		n[h.s.Rule]++
	}
	return n
}

func show(t *testing.T, hits []hit) {
	t.Helper()
	for _, h := range hits {
		t.Log(h)
	}
}

func silent(t *testing.T, hits []hit) {
	t.Helper()
	if len(hits) > 0 {
		t.Errorf("%d signals where there should be none", len(hits))
		show(t, hits)
	}
}

// every calls do at each step from one time until another, give or take.
func every(r *rand.Rand, from, until time.Time, step, jitter time.Duration, do func(time.Time)) {
	for at := from; at.Before(until); at = at.Add(step) {
		j := time.Duration(0)
		if jitter > 0 {
			j = time.Duration(r.Int64N(int64(jitter)))
		}
		do(at.Add(j))
	}
}

func hours(n float64) time.Duration { return time.Duration(n * float64(time.Hour)) }

// tenPods are ten pods on three nodes for a day: each uses its token every two
// minutes, and the kubelet renews it every ten.
func tenPods(r *rand.Rand, until time.Duration) (log []remit.Activity, who remit.Ref) {
	return pods(r, 10, until)
}

func pods(r *rand.Rand, n int, until time.Duration) (log []remit.Activity, who remit.Ref) {
	who = account("payments", "api")
	for pod := range n {
		name, node := fmt.Sprintf("api-%d", pod), pod%3
		own := fmt.Sprintf("10.1.%d.%d", node, 10+pod)
		offset := start.Add(time.Duration(pod) * 37 * time.Second)
		every(r, offset, start.Add(until), 10*time.Minute, 8*time.Second, func(at time.Time) {
			log = append(log, renews(fmt.Sprintf("node-%d", node), fmt.Sprintf("127.10.0.%d", 2+node), at, who, name))
		})
		every(r, offset, start.Add(until), 2*time.Minute, 20*time.Second, func(at time.Time) {
			log = append(log, bound(does(who, at, "get", "configmaps", "payments", own, "api/2.4"), name))
		})
	}
	return log, who
}

func TestRegularRenewalIsSilent(t *testing.T) {
	log, _ := tenPods(rand.New(rand.NewPCG(1, 1)), 30*time.Hour)
	silent(t, observe(baseline.New(baseline.Options{}), log))
}

// The case that the package exists for: nothing but the address tells the
// attacker's renewals from those of the kubelet.
func TestAttackerRenewsBesideTheKubelet(t *testing.T) {
	for _, test := range []struct {
		name, boundTo, agent string
		every                time.Duration
	}{
		{"for the same pod, same cadence, same program", "api-3", "kubelet/v1.36.3 (linux/amd64) kubernetes/1a2b3c", 10 * time.Minute},
		{"for the same pod, with curl every 7 min", "api-3", "curl/8.4", 7 * time.Minute},
		{"bound to nothing", "", "curl/8.4", 7 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, who := tenPods(rand.New(rand.NewPCG(1, 1)), 30*time.Hour)
			for at := start.Add(24*time.Hour + 3*time.Minute); at.Before(start.Add(30 * time.Hour)); at = at.Add(test.every) {
				log = append(log, mintsItself(who, "api-3", test.boundTo, "10.9.0.4", test.agent, at))
			}
			hits := observe(baseline.New(baseline.Options{}), log)
			show(t, hits)
			n := rules(hits)
			if n["baseline-cadence-fork"] != 2 { // seen at once, proved when the kubelet goes on
				t.Errorf("%d signals of a fork, want 2", n["baseline-cadence-fork"])
			}
			if n["baseline-concurrent-use"] != 1 {
				t.Errorf("%d signals of a concurrent use, want 1", n["baseline-concurrent-use"])
			}
			last := remit.Info
			for _, h := range hits {
				if h.a.Address != "10.9.0.4" {
					t.Errorf("a signal on one who did nothing: %s", h)
				}
				if h.s.Rule != "baseline-cadence-fork" {
					continue
				}
				if h.s.Severity.Rank() <= last.Rank() {
					t.Errorf("severity %s after %s", h.s.Severity, last)
				}
				last = h.s.Severity
				if !strings.Contains(h.s.Words, "usually") || !strings.Contains(h.s.Words, "every 10 min") ||
					!strings.Contains(h.s.Words, "from 127.10.0.") || !strings.Contains(h.s.Words, "(kubelet)") || !strings.Contains(h.s.Words, "10.9.0.4") {
					t.Errorf("words: %s", h.s.Words)
				}
			}
			if last != remit.High {
				t.Errorf("the fork ends as %s, want high", last)
			}
		})
	}
}

// A second renewer in the same place shows in the intervals alone.
func TestIntervalsAreSplit(t *testing.T) {
	who := account("payments", "api")
	var log []remit.Activity
	r := rand.New(rand.NewPCG(1, 1))
	every(r, start, start.Add(24*time.Hour), 10*time.Minute, 8*time.Second, func(at time.Time) {
		log = append(log, renews("node-1", "127.10.0.2", at, who, "api-1"))
	})
	restart := slices.Clone(log)
	// A kubelet that is restarted renews early once, and goes on from there.
	for i := range restart {
		if restart[i].Time.After(start.Add(12 * time.Hour)) {
			restart[i].Time = restart[i].Time.Add(-6 * time.Minute)
		}
	}
	silent(t, observe(baseline.New(baseline.Options{}), restart))

	every(r, start.Add(20*time.Hour+3*time.Minute), start.Add(24*time.Hour), 10*time.Minute, 8*time.Second, func(at time.Time) {
		log = append(log, renews("node-1", "127.10.0.2", at, who, "api-1"))
	})
	hits := observe(baseline.New(baseline.Options{}), log)
	if n := rules(hits); n["baseline-cadence-fork"] != 1 || len(hits) != 1 {
		t.Errorf("signals %v, want one of a fork", n)
	}
	show(t, hits)
}

func TestPodMovesToAnotherNode(t *testing.T) {
	who := account("payments", "db")
	var log []remit.Activity
	r := rand.New(rand.NewPCG(2, 2))
	for i, node := range []string{"node-1", "node-2", "node-1"} {
		from := start.Add(time.Duration(i) * 8 * time.Hour)
		address, own := fmt.Sprintf("127.10.0.%s", node[5:]), fmt.Sprintf("10.1.%s.%d", node[5:], 20+i)
		every(r, from, from.Add(8*time.Hour), 10*time.Minute, 8*time.Second, func(at time.Time) {
			log = append(log, renews(node, address, at, who, "db-0"))
		})
		every(r, from, from.Add(8*time.Hour), time.Minute, 8*time.Second, func(at time.Time) {
			log = append(log, bound(does(who, at, "update", "leases", "payments", own, "db/1.0"), "db-0"))
		})
	}
	silent(t, observe(baseline.New(baseline.Options{}), log))
}

func TestTokenUsedFromTwoAddresses(t *testing.T) {
	who := account("payments", "api")
	log := func(type_ remit.IdentityType, pod string) []remit.Activity {
		var log []remit.Activity
		use := func(at time.Time, address string) {
			a := does(who, at, "get", "configmaps", "payments", address, "api/2.4")
			if pod != "" {
				a = bound(a, pod)
			}
			a.Type = type_
			log = append(log, a)
		}
		for at := start; at.Before(start.Add(12 * time.Hour)); at = at.Add(time.Minute) {
			use(at, "10.1.0.7")
			if at.Sub(start) > 11*time.Hour && at.Minute()%5 == 0 {
				use(at.Add(30*time.Second), "10.9.0.4")
			}
		}
		return log
	}
	for _, test := range []struct {
		name     string
		of       remit.IdentityType
		pod      string
		severity remit.Severity
	}{
		{"a pod's token", remit.ServiceAccount, "api-1", remit.High},
		{"a token bound to nothing", remit.ServiceAccount, "", remit.Medium},
		{"a person", remit.Human, "", remit.Low},
	} {
		t.Run(test.name, func(t *testing.T) {
			var of []hit
			for _, h := range observe(baseline.New(baseline.Options{}), log(test.of, test.pod)) {
				if h.s.Rule == "baseline-concurrent-use" {
					of = append(of, h)
				}
			}
			show(t, of)
			if len(of) != 1 || of[0].s.Severity != test.severity || of[0].a.Address != "10.9.0.4" {
				t.Errorf("%d signals, want one, %s, on the new address", len(of), test.severity)
			}
		})
	}
}

// A service with two network ways out has had both from the start.
func TestTwoAddressesFromTheStart(t *testing.T) {
	who := account("ops", "prober")
	var log []remit.Activity
	r := rand.New(rand.NewPCG(3, 3))
	every(r, start, start.Add(48*time.Hour), time.Minute, 5*time.Second, func(at time.Time) {
		log = append(log, does(who, at, "get", "healthz", "", []string{"198.51.100.1", "203.0.113.9"}[r.IntN(2)], "prober/1"))
	})
	silent(t, observe(baseline.New(baseline.Options{}), log))
}

func TestCronJobIsSilent(t *testing.T) {
	who := account("jobs", "report")
	var log []remit.Activity
	r := rand.New(rand.NewPCG(4, 4))
	every(r, start.Add(hours(2)), start.Add(hours(21*24)), 24*time.Hour, 10*time.Minute, func(at time.Time) {
		pod := fmt.Sprintf("report-%d", at.Unix()/60)
		log = append(log, renews("node-1", "127.10.0.2", at, who, pod))
		for i := range 40 {
			log = append(log, bound(does(who, at.Add(time.Duration(i)*time.Second), "list", "pods", "jobs",
				fmt.Sprintf("10.1.0.%d", r.IntN(250)), "report/1.2"), pod))
		}
	})
	silent(t, observe(baseline.New(baseline.Options{}), log))
}

func TestWeeklyJobIsNoAlarmInItsSecondWeek(t *testing.T) {
	who := account("jobs", "backup")
	var log []remit.Activity
	for week := range 4 {
		for i := range 3000 {
			at := start.Add(time.Duration(week)*7*24*time.Hour + hours(3) + time.Duration(i)*time.Second)
			log = append(log, does(who, at, "get", "secrets", fmt.Sprintf("team-%d", i%5), "10.1.0.9", "backup/1"))
		}
	}
	// Beside it the account does a little every hour of every day.
	r := rand.New(rand.NewPCG(5, 5))
	every(r, start, start.Add(28*24*time.Hour), time.Hour, 10*time.Minute, func(at time.Time) {
		log = append(log, does(who, at, "list", "namespaces", "", "10.1.0.9", "backup/1"))
	})
	silent(t, observe(baseline.New(baseline.Options{}), log))
}

// office is a person who works from nine to five, Monday to Friday, and looks at
// something new every day.
func office(r *rand.Rand, name string, days int) (log []remit.Activity) {
	for d := range days {
		date := start.Add(time.Duration(d) * 24 * time.Hour)
		if date.Weekday() == time.Saturday || date.Weekday() == time.Sunday {
			continue
		}
		every(r, date.Add(hours(9)), date.Add(hours(17)), 4*time.Minute, 4*time.Minute, func(at time.Time) {
			kind := []string{"pods", "deployments", "configmaps"}[r.IntN(3)]
			if r.IntN(40) == 0 {
				kind = fmt.Sprintf("kind-%d", r.IntN(1000))
			}
			log = append(log, person(name, at, []string{"get", "list"}[r.IntN(2)], kind, "team"))
		})
	}
	return log
}

func TestOfficeHoursHuman(t *testing.T) {
	log := office(rand.New(rand.NewPCG(6, 6)), "jane", 26)
	hits := observe(baseline.New(baseline.Options{}), log)
	if len(hits) > 3 {
		t.Errorf("%d signals about a person who does something new every day", len(hits))
	}
	show(t, hits)

	night := person("jane", start.Add(26*24*time.Hour+hours(3)), "get", "pods", "team") // a Saturday
	b := baseline.New(baseline.Options{})
	observe(b, log)
	hits = observe(b, []remit.Activity{night})
	show(t, hits)
	if n := rules(hits); n["baseline-unusual-time"] != 1 || len(hits) != 1 {
		t.Errorf("signals %v of work at three on a Saturday, want one of an unusual time", n)
	}
}

// steady is a controller that does the same few things all day.
func steady(who remit.Ref, from, until time.Time) (log []remit.Activity) {
	i := 0
	for at := from; at.Before(until); at = at.Add(2 * time.Minute) {
		verb := []string{"get", "list", "watch", "update"}[i%4]
		log = append(log, does(who, at, verb, "deployments", "apps", "10.1.0.5", "controller/v1.2.3"))
		i++
	}
	return log
}

func TestFirstOfItsKind(t *testing.T) {
	who := account("apps", "controller")
	until := start.Add(9 * 24 * time.Hour)
	secret := does(who, until, "get", "secrets", "kube-system", "10.1.0.5", "controller/v1.2.4")
	shell := does(who, until.Add(time.Minute), "get", "deployments", "apps", "198.51.100.9", "curl/8.4")

	b := baseline.New(baseline.Options{})
	silent(t, observe(b, steady(who, start, until)))
	elsewhere := does(who, until.Add(2*time.Minute), "get", "deployments", "other", "10.1.0.5", "controller/v1.2.4")
	hits := observe(b, []remit.Activity{secret, shell, elsewhere, secret, shell})
	show(t, hits)
	want := map[string]int{"baseline-new-operation": 1, "baseline-new-resource": 1, "baseline-new-network": 1, "baseline-new-agent": 1}
	if n := rules(hits); fmt.Sprint(n) != fmt.Sprint(want) {
		t.Errorf("signals %v, want %v", n, want)
	}
	for _, h := range hits {
		if h.s.Severity != remit.Low {
			t.Errorf("%s alone is %s, want low", h.s.Rule, h.s.Severity)
		}
	}

	t.Run("after a day only", func(t *testing.T) {
		b := baseline.New(baseline.Options{})
		silent(t, observe(b, steady(who, start, start.Add(22*time.Hour))))
		if n := rules(observe(b, []remit.Activity{does(who, start.Add(23*time.Hour), "get", "secrets", "kube-system", "10.1.0.5", "controller/1")})); n["baseline-new-operation"] != 1 {
			t.Errorf("signals %v, want the new operation: a log of one day is of use", n)
		}
	})
	t.Run("while learning", func(t *testing.T) {
		b := baseline.New(baseline.Options{})
		silent(t, observe(b, append(steady(who, start, start.Add(3*time.Hour)), does(who, start.Add(4*time.Hour), "get", "secrets", "kube-system", "10.1.0.5", "x"))))
	})
}

func TestDeployIsLearnedSilently(t *testing.T) {
	who := account("apps", "controller")
	until := start.Add(9 * 24 * time.Hour)
	id := remit.IdentityID(cluster, who)
	news := func(at time.Time) (log []remit.Activity) {
		for i := range 30 {
			a := does(who, at.Add(time.Duration(i)*time.Second), "list", fmt.Sprintf("kind-%d", i), "apps", "10.1.0.5", "new-controller/v2")
			a.Outcome = remit.Denied
			log = append(log, a)
		}
		return log
	}
	b := baseline.New(baseline.Options{})
	observe(b, steady(who, start, until))
	b.Deployed(id, until.Add(time.Minute))
	silent(t, observe(b, news(until.Add(2*time.Minute))))
	if n := rules(observe(b, news(until.Add(2*time.Minute)))); len(n) != 0 {
		t.Errorf("what was learned during the deployment is told after it: %v", n)
	}

	abroad := does(who, until.Add(30*time.Minute), "list", "kind-1", "apps", "198.51.100.9", "new-controller/v2")
	if n := rules(observe(b, []remit.Activity{abroad})); n["baseline-new-network"] != 1 {
		t.Errorf("signals %v: another network is told after a deployment too", n)
	}
	later := does(who, until.Add(5*time.Hour), "delete", "nodes", "", "10.1.0.5", "new-controller/v2")
	if n := rules(observe(b, []remit.Activity{later})); n["baseline-new-operation"] != 1 {
		t.Errorf("signals %v: the deployment does not settle for ever", n)
	}
}

func TestBurst(t *testing.T) {
	who := account("apps", "controller")
	until := start.Add(9 * 24 * time.Hour)
	for _, test := range []struct {
		rule    string
		outcome remit.Outcome
		n       int
	}{
		{"baseline-volume", remit.Allowed, 1000},
		{"baseline-denials", remit.Denied, 60},
		{"baseline-failures", remit.Failed, 60},
	} {
		b := baseline.New(baseline.Options{})
		observe(b, steady(who, start, until))
		var log []remit.Activity
		for i := range test.n {
			a := does(who, until.Add(time.Duration(i)*time.Second), "get", "deployments", "apps", "10.1.0.5", "controller/v1")
			a.Outcome = test.outcome
			log = append(log, a)
		}
		hits := observe(b, log)
		show(t, hits)
		if n := rules(hits); n[test.rule] != 1 || len(hits) != 1 {
			t.Errorf("signals %v, want one of %s", n, test.rule)
		}
	}
}

func TestDormantWakes(t *testing.T) {
	who := account("old", "migration")
	other := account("apps", "controller")
	wake := start.Add(100 * 24 * time.Hour)
	log := append(steady(who, start, start.Add(hours(48))), steady(other, start, wake.Add(time.Hour))...)
	log = append(log, does(who, wake, "get", "deployments", "apps", "10.1.0.5", "controller/v1.2.3"))
	hits := observe(baseline.New(baseline.Options{}), log)
	show(t, hits)
	if n := rules(hits); n["baseline-dormant-wakes"] != 1 || len(hits) != 1 {
		t.Errorf("signals %v, want one of a dormant identity", n)
	}

	// What the inventory knows counts where nothing was learned.
	a := does(account("old", "forgotten"), start, "get", "pods", "old", "10.1.0.5", "x")
	a.Dormant = 200 * 24 * time.Hour
	if n := rules(observe(baseline.New(baseline.Options{}), []remit.Activity{a})); n["baseline-dormant-wakes"] != 1 {
		t.Errorf("signals %v, want one of a dormant identity", n)
	}
}

func TestNewOperatorInANewNamespaceIsSilent(t *testing.T) {
	log := steady(account("apps", "controller"), start, start.Add(12*24*time.Hour))
	who := account("operator-system", "operator")
	r := rand.New(rand.NewPCG(7, 7))
	every(r, start.Add(10*24*time.Hour), start.Add(12*24*time.Hour), time.Minute, 10*time.Second, func(at time.Time) {
		kind := []string{"leases", "pods", "customresourcedefinitions", "secrets"}[r.IntN(4)]
		log = append(log, does(who, at, []string{"get", "create", "update"}[r.IntN(3)], kind, "operator-system", "10.1.2.8", "operator/v0.1"))
	})
	silent(t, observe(baseline.New(baseline.Options{}), log))
}

func TestPeers(t *testing.T) {
	fleet := func(n int, until time.Duration) (log []remit.Activity) {
		for i := range n {
			log = append(log, steady(account("apps", fmt.Sprintf("worker-%d", i)), start, start.Add(until))...)
		}
		return log
	}
	at := start.Add(9 * 24 * time.Hour)
	creates := func(name string, at time.Time) remit.Activity {
		return does(account("apps", name), at, "create", "secrets", "apps", "10.1.0.5", "controller/v1.2.3")
	}

	b := baseline.New(baseline.Options{})
	silent(t, observe(b, fleet(10, 9*24*time.Hour)))
	var log []remit.Activity
	for i := range 10 { // a new version of all of them
		log = append(log, creates(fmt.Sprintf("worker-%d", i), at.Add(time.Duration(i)*time.Minute)))
	}
	hits := observe(b, log)
	show(t, hits)
	if n := rules(hits)["baseline-new-operation"]; n < 1 || n > 6 {
		t.Errorf("%d signals about ten peers that begin the same: want those about the first of them only", n)
	}
	if !strings.Contains(hits[0].s.Words, "none of its 9 peers in apps") && !strings.Contains(hits[0].s.Words, "none of its 10 peers in apps") {
		t.Errorf("words: %s", hits[0].s.Words)
	}

	b = baseline.New(baseline.Options{})
	observe(b, fleet(10, 9*24*time.Hour))
	hits = observe(b, []remit.Activity{does(account("apps", "intruder"), at, "create", "rolebindings", "apps", "10.1.0.5", "controller/v1.2.3")})
	show(t, hits)
	if n := rules(hits); n["baseline-unlike-peers"] != 1 || len(hits) != 1 || hits[0].s.Severity != remit.Info {
		t.Errorf("signals %v, want one information that a new identity is unlike its peers", n)
	}
}

// normal is three weeks of a cluster in which nothing is wrong.
func normal(r *rand.Rand, days int) (log []remit.Activity) {
	until := start.Add(time.Duration(days) * 24 * time.Hour)
	for i := range 8 {
		log = append(log, office(r, fmt.Sprintf("person-%d", i), days)...)
	}
	for i := range 10 { // controllers: steady, with resyncs and a new release now and then
		who := account("system", fmt.Sprintf("controller-%d", i))
		every(r, start, until, 3*time.Minute, 2*time.Minute, func(at time.Time) {
			log = append(log, does(who, at, []string{"get", "list", "update"}[r.IntN(3)], fmt.Sprintf("kind-%d", r.IntN(4)+i),
				fmt.Sprintf("team-%d", r.IntN(6)), fmt.Sprintf("10.1.%d.7", i), fmt.Sprintf("controller/v1.%d", at.YearDay()/10)))
			if r.IntN(300) == 0 {
				for j := range 80 {
					log = append(log, does(who, at.Add(time.Duration(j)*200*time.Millisecond), "list", fmt.Sprintf("kind-%d", j%4+i), "", fmt.Sprintf("10.1.%d.7", i), "controller/v1"))
				}
			}
		})
	}
	for i := range 6 { // services with pods that are replaced twice a day
		who := account("shop", fmt.Sprintf("service-%d", i))
		every(r, start, until, 12*time.Hour, time.Hour, func(from time.Time) {
			node := r.IntN(5)
			pod := fmt.Sprintf("service-%d-%d", i, from.Unix())
			own := fmt.Sprintf("10.2.%d.%d", node, r.IntN(250))
			every(r, from, from.Add(12*time.Hour), 49*time.Minute, 90*time.Second, func(at time.Time) {
				log = append(log, renews(fmt.Sprintf("node-%d", node), fmt.Sprintf("10.0.0.%d", node), at, who, pod))
			})
			every(r, from, from.Add(12*time.Hour), 5*time.Minute, 4*time.Minute, func(at time.Time) {
				log = append(log, bound(does(who, at, "get", "configmaps", "shop", own, "service/1"), pod))
			})
		})
	}
	for i := range 5 { // pipelines: from many networks, at working hours, with free tokens
		who := account("ci", fmt.Sprintf("pipeline-%d", i))
		every(r, start, until, time.Hour, 40*time.Minute, func(at time.Time) {
			if at.Hour() < 7 || at.Hour() > 19 || r.IntN(3) == 0 {
				return
			}
			address := fmt.Sprintf("20.%d.%d.4", r.IntN(10), r.IntN(200))
			for j := range 20 + r.IntN(60) {
				a := does(who, at.Add(time.Duration(j)*3*time.Second), []string{"get", "patch"}[j%2], "deployments", fmt.Sprintf("team-%d", r.IntN(6)), address, "helm/3.1")
				if r.IntN(50) == 0 {
					a.Outcome = remit.Failed
				}
				log = append(log, a)
			}
		})
	}
	return log
}

// TestFalseAlarms bounds what a user must look at when nothing is wrong.
func TestFalseAlarms(t *testing.T) {
	const days = 28
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		log := normal(rand.New(rand.NewPCG(seed, 11)), days)
		who := map[remit.ID]bool{}
		for i := range log {
			who[log[i].Identity] = true
		}
		hits := observe(baseline.New(baseline.Options{}), log)
		by := map[remit.Severity]int{}
		for _, h := range hits {
			by[h.s.Severity]++
		}
		weeks := float64(len(who)) * days / 7
		t.Logf("seed %d: %d activities of %d identities in %d days: %v, %.3f signals per identity and week, by rule %v",
			seed, len(log), len(who), days, by, float64(len(hits))/weeks, rules(hits))
		if by[remit.Medium]+by[remit.High]+by[remit.Critical] > 0 || float64(by[remit.Low])/weeks > 0.05 || float64(len(hits))/weeks > 0.25 {
			slices.SortStableFunc(hits, func(a, b hit) int { return -cmp.Compare(a.s.Severity.Rank(), b.s.Severity.Rank()) })
			t.Errorf("too many false alarms")
			show(t, hits[:min(len(hits), 30)])
		}
	}
}
