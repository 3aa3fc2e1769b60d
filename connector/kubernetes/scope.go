package kubernetes

// namespaceScope is the set of namespaces that are read.
type namespaceScope map[string]bool

func newNamespaceScope(namespaces []string) namespaceScope {
	if len(namespaces) == 0 {
		return nil
	}
	s := namespaceScope{}
	for _, ns := range namespaces {
		s[ns] = true
	}
	return s
}

// includes says whether what lies in the namespace is read; "" stands for what
// lies in none.
func (s namespaceScope) includes(namespace string) bool {
	return s == nil || namespace == "" || s[namespace]
}
