package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"remit"
)

// duckDB installs DuckDB from its npm package, once for each lock file, and
// returns the directory that it is in. In CI it must be there.
func duckDB(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v: this test reads the archive with DuckDB", err)
			}
			t.Skipf("%v: DuckDB cannot be installed", err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "package-lock.json"} {
		if files[name], err = os.ReadFile(filepath.Join("testdata", "duckdb", name)); err != nil {
			t.Fatal(err)
		}
		hash.Write(files[name])
	}
	dir := filepath.Join(cache, "remit", "duckdb-"+hex.EncodeToString(hash.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	// Made elsewhere and moved, so that what is there is complete.
	making, err := os.MkdirTemp(filepath.Dir(dir), "duckdb-making-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(making)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(making, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = making
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.Rename(making, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ask runs statements in one DuckDB session and gives the rows of each.
func ask(t *testing.T, duck string, statements ...string) [][][]string {
	t.Helper()
	in, err := json.Marshal(statements)
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs(filepath.Join("testdata", "duckdb", "query.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", script, duck)
	node.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	var results []struct {
		Rows  [][]string
		Error string
	}
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatal(err)
	}
	rows := make([][][]string, len(results))
	for i, result := range results {
		if result.Error != "" {
			t.Errorf("DuckDB: %s\nin: %s", result.Error, statements[i])
		}
		rows[i] = result.Rows
	}
	return rows
}

// docsDir is the archive's directory in the documentation.
const docsDir = "/var/lib/remit/archive"

// TestDuckDB reads an archive with DuckDB, of which half was compacted, and
// counts as the events themselves count. Then it runs the queries of the
// documentation, every one of which finds something in these events.
func TestDuckDB(t *testing.T) {
	duck := duckDB(t)
	ctx := context.Background()
	a := open(t, Options{RowGroup: 700})
	var files []File
	count := map[string]map[string]int{"system": {}, "identity": {}, "outcome": {}, "hour": {}}
	events := map[string]remit.Activity{}
	for mark := range 4 {
		change := func(e *remit.Activity) {
			e.Time = e.Time.Add(time.Duration(mark) * 59 * time.Minute)
			e.System = []remit.ID{production, staging}[mark%2]
			if e.ID == "event-00000100" {
				e.Principal, e.Reason, e.UserAgent = "bad \xff bytes", "NUL \x00, ' and \"", strings.Repeat("long ", 10_000)
			}
			if e.Credential == "JTI=7-0" {
				e.SelfMinted, e.Outside = true, true
			}
			count["system"][string(e.System)]++
			count["identity"][string(e.Identity)]++
			count["outcome"][string(e.Outcome)]++
			count["hour"][e.Time.Format("2006-01-02 15")]++
			events[e.ID] = *e
		}
		files = append(files, fill(t, a, fmt.Sprint("m", mark), mark*20_000, (mark+1)*20_000, change)...)
	}
	made, replaced, err := a.Compact(ctx, "c", files[:1])
	if err != nil || len(made) != 1 {
		t.Fatal(err)
	}
	if err := a.Remove(ctx, replaced); err != nil {
		t.Fatal(err)
	}

	from := "FROM read_parquet('" + a.dir + "/system=*/**/*.parquet', hive_partitioning = true) "
	rows := ask(t, duck,
		"SELECT system, count(*) "+from+"GROUP BY 1",
		"SELECT identity, count(*) "+from+"GROUP BY 1",
		"SELECT outcome, count(*) "+from+"GROUP BY 1",
		"SELECT strftime(date, '%Y-%m-%d') || ' ' || printf('%02d', hour), count(*) "+from+"GROUP BY 1",
		"SELECT strftime(time AT TIME ZONE 'UTC', '%Y-%m-%d %H'), count(*) "+from+"GROUP BY 1",
		"SELECT count(*), count(*) FILTER (WHERE system = system_id), count(raw), count(minted_expires) "+from,
		"SELECT event_id, epoch_us(time), minted_lifetime_us, minted_audiences[2], chain[1].name, len(chain), raw ->> 'auditID', principal, length(reason), length(user_agent) "+from+"WHERE event_id = 'event-00000100'",
		"SELECT count(*) "+from+"WHERE credential = 'JTI=7-3'",
		"SELECT count(*) "+from+"WHERE minted_credential = 'JTI=minted-1200'",
		"SELECT name, type, logical_type FROM parquet_schema('"+filepath.Join(a.dir, filepath.FromSlash(made[0].Path))+"') WHERE name IN ('time', 'raw', 'identity', 'chain')",
	)
	if t.Failed() {
		return
	}
	for i, by := range []string{"system", "identity", "outcome", "hour", "hour"} {
		got := map[string]int{}
		for _, r := range rows[i] {
			n := 0
			_, _ = fmt.Sscan(r[1], &n)
			got[r[0]] = n
		}
		if !maps.Equal(got, count[by]) {
			t.Errorf("by %s: DuckDB counts %v, want %v", by, got, count[by])
		}
	}
	if got, want := rows[5][0], []string{"80000", "80000", "80000", "800"}; !slices.Equal(got, want) {
		t.Errorf("rows, systems, raw events and expiries: %v, want %v", got, want)
	}
	one := events["event-00000100"]
	want := []string{one.ID, fmt.Sprint(one.Time.UnixMicro()), "3600000000", "vault", "alice", "2", one.ID, "bad \uFFFD bytes", fmt.Sprint(len("NUL \x00, ' and \"")), fmt.Sprint(maxString)}
	if got := rows[6][0]; !slices.Equal(got, want) {
		t.Errorf("one event: %q, want %q", got, want)
	}
	n := 0
	for _, e := range events {
		if e.Credential == "JTI=7-3" {
			n++
		}
	}
	if got := rows[7][0][0]; got != fmt.Sprint(n) || rows[8][0][0] != "1" {
		t.Errorf("a credential's events: %s and %s, want %d and 1", got, rows[8][0][0], n)
	}
	for _, r := range rows[9] {
		if r[0] == "time" && !strings.Contains(r[2], "MICROS") || r[0] == "raw" && !strings.Contains(r[2], "String") {
			t.Errorf("logical type of %v", r)
		}
	}

	page, err := os.ReadFile(filepath.FromSlash("../../docs/reference/archive.md"))
	if err != nil {
		t.Fatal(err)
	}
	statements := sqlOf(string(page), "DuckDB")
	if len(statements) < 5 {
		t.Fatalf("the documentation has %d queries for DuckDB", len(statements))
	}
	for i, s := range statements {
		statements[i] = strings.ReplaceAll(s, docsDir, a.dir)
	}
	for i, rows := range ask(t, duck, statements...) {
		if len(rows) == 0 && !strings.HasPrefix(statements[i], "CREATE") {
			t.Errorf("the documentation's query finds nothing:\n%s", statements[i])
		}
	}
}

// sqlOf gives the SQL statements of the code blocks under a heading.
func sqlOf(page, heading string) []string {
	_, section, _ := strings.Cut(page, "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var all []string
	for {
		_, after, ok := strings.Cut(section, "```sql\n")
		if !ok {
			return all
		}
		var block string
		block, section, _ = strings.Cut(after, "```")
		for statement := range strings.SplitSeq(block, ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				all = append(all, statement)
			}
		}
	}
}
