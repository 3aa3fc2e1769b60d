package sqlstore

// keySet is a set of integer keys, about a bit a key: keys of one listing lie
// close together, because they were given out in the order of arrival.
type keySet struct {
	pages map[int64]*keyPage
}

// keyPage holds 32,768 keys in 4 KiB.
type keyPage [512]uint64

func (s *keySet) add(key int64) {
	if s.pages == nil {
		s.pages = make(map[int64]*keyPage)
	}
	page := s.pages[key>>15]
	if page == nil {
		page = new(keyPage)
		s.pages[key>>15] = page
	}
	page[key>>6&511] |= 1 << (key & 63)
}

func (s *keySet) has(key int64) bool {
	page := s.pages[key>>15]
	return page != nil && page[key>>6&511]&(1<<(key&63)) != 0
}
