package sqlstore

// AlwaysWalk makes no filter's index serve, until the function it returns is
// called: what a large store does for a filter that most rows meet.
func AlwaysWalk() (restore func()) {
	before := probeLimit
	probeLimit = -1
	return func() { probeLimit = before }
}
