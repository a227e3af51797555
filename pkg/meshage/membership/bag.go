package membership

// bag is a set of things by ID, with an order that depends only on what was
// done to it, so that runs can be repeated.
type bag[T any] struct {
	at    map[ID]int
	ids   []ID
	items []T
}

func (b *bag[T]) get(id ID) (item T, ok bool) {
	i, ok := b.at[id]
	if ok {
		item = b.items[i]
	}
	return item, ok
}

func (b *bag[T]) put(id ID, item T) {
	if i, ok := b.at[id]; ok {
		b.items[i] = item
		return
	}
	if b.at == nil {
		b.at = map[ID]int{}
	}
	b.at[id] = len(b.items)
	b.ids, b.items = append(b.ids, id), append(b.items, item)
}

func (b *bag[T]) remove(id ID) {
	i, ok := b.at[id]
	if !ok {
		return
	}
	last := len(b.items) - 1
	b.ids[i], b.items[i] = b.ids[last], b.items[last]
	b.at[b.ids[i]] = i
	delete(b.at, id)
	var none T
	b.ids[last], b.items[last] = "", none
	b.ids, b.items = b.ids[:last], b.items[:last]
}

func (b *bag[T]) size() int { return len(b.items) }
