package policy

import (
	"remit"
)

// Explain tells everything about one policy. [remit.NotFound], with the id
// that was probably meant, when there is none.
func (s *Set) Explain(id string) (Explanation, error) {
	p := s.byID[id]
	if p == nil {
		known := make([]string, 0, len(s.policies))
		for _, p := range s.policies {
			known = append(known, p.ID)
		}
		return Explanation{}, remit.Errorf(remit.NotFound, "explain policy", "no policy %s%s", quote(id), meant(id, known))
	}
	e := Explanation{Policy: p, Runs: p.Runs(), Tests: len(p.Cases)}
	for _, problem := range s.problems {
		if problem.Policy == id {
			e.Problems = append(e.Problems, problem)
		}
	}
	if p.Family != "" {
		for _, other := range s.policies {
			if other.Family == p.Family && other != p {
				e.Relatives = append(e.Relatives, other.ID)
			}
		}
	}
	return e, nil
}

// Explanation is what there is to say about a policy.
type Explanation struct {
	*Policy
	Runs      bool      `json:"runs"`                // it is evaluated
	Problems  []Problem `json:"problems,omitempty"`  // why it does not
	Relatives []string  `json:"relatives,omitempty"` // the others of its family
	Tests     int       `json:"tests"`
}
