"""Which slot of the KV pool holds which token: a radix tree over token ids, and the slots that are free.

The KV of a token depends on all tokens before it, so a slot belongs to one path from the root: a sequence may read the
slots of its longest prefix in the tree and computes the rest. Slots move from free to lent (`allocate`), from lent into
the tree (`extend`), and back by `release` and eviction. Radix caching: https://arxiv.org/abs/2312.07104, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

import attrs

from inference.free_slots import FreeSlots

BLOCK = 512
"""Tokens compared at once, until two sequences differ."""


class OutOfSlots(Exception):
    """More slots are wanted than are free or can be freed."""

    def __init__(self, wanted: int, free: int, evictable: int, held: int):
        """`held`: slots of running work, in the tree or lent out."""
        super().__init__(
            f"the KV cache cannot hold {wanted} more tokens: {free} slots are free, {evictable} can be evicted and "
            f"running work holds {held}; wait for some of it to end, or shorten the context"
        )
        self.wanted, self.free, self.evictable, self.held = wanted, free, evictable, held


@attrs.define(eq=False)
class Node:
    """A run of tokens, at least one but in the root; slots[i] holds the KV of ids[i]. Its lists are its own."""

    parent: Node | None
    """None for the root and for what was evicted."""
    ids: list[int]
    slots: list[int]
    locks: int = 0
    """Leases on this node and on all below it."""
    used: int = 0
    """When a lease through this node was last begun or ended. Where nothing is locked, no child is younger."""
    children: dict[int, Node] = attrs.field(factory=dict["int", "Node"])
    """By their first token."""


@attrs.define(eq=False)
class Lease:
    """A running sequence's hold on the tree: the path to `node` cannot be evicted."""

    node: Node
    length: int
    """Tokens of the sequence that the tree holds; the last of them is the node's last."""


class PrefixCache:
    """The bookkeeping of one pool, one slot a token. One thread calls it."""

    def __init__(self, slots: int):
        self.slots = slots
        self.root = Node(None, [], [])
        self.nodes = 0
        """Of the tree, without its root."""
        self.evictions = 0
        """Tokens evicted for others so far."""
        self.evictable = 0
        """Tokens in the tree that no lease needs."""
        self._free = FreeSlots(slots)
        self._lent = 0
        self._clock = 0
        self._leaves: list[tuple[int, int, Node]] = []  # heap of (used, serial, node); some entries are out of date
        self._offers = 0

    @property
    def free(self) -> int:
        """Slots that hold nothing."""
        return self._free.count

    @property
    def held(self) -> int:
        """Slots in the tree."""
        return self.slots - self._free.count - self._lent

    def match(self, ids: list[int], limit: int) -> tuple[Lease, list[int]]:
        """The longest prefix of `ids` in the tree, at most `limit` tokens: a lease on it, and its slots."""
        node, slots = self._descend(self.root, ids, 0, limit)
        self._clock += 1
        self._lock(node, None)
        return Lease(node, len(slots)), slots

    def allocate(self, count: int, after: int = -1) -> list[int]:
        """Lends `count` slots, ascending; evicts what was used least recently if too few are free.

        They are those right behind slot `after` if these are free, else of the smallest free run that has
        `count`, else of several runs. Raises OutOfSlots, nothing changed, if eviction cannot free enough either.
        """
        short = count - self._free.count
        if short > self.evictable:
            running = self.slots - self._free.count - self.evictable
            raise OutOfSlots(count, self._free.count, self.evictable, running)
        if short > 0:
            self._free.add(self._evict(short))
            self.evictions += short
        self._lent += count
        return self._free.take(count, after)

    def release(self, slots: list[int]) -> None:
        """Takes back slots that were allocated and are not in the tree."""
        self._lent -= len(slots)
        self._free.add(slots)

    def extend(self, lease: Lease, ids: list[int], slots: list[int]) -> list[int]:
        """Puts the tokens from `lease.length` to len(slots) into the tree and moves the lease to their end.

        slots[i] holds ids[i], from the sequence's first token on. Where the tree has a token already, its slot
        is kept and the caller's is freed. Returns the slots as they are now: `slots` itself if none was replaced.
        """
        start, end = lease.length, len(slots)
        above = lease.node
        node, found = self._descend(above, ids, start, end)
        self._lock(node, above)
        self._lent -= end - start
        known = start + len(found)
        if found:
            self._free.add(slots[start:known])
            slots = slots[:start] + found + slots[known:]
        if known < end:
            node = self._append(node, ids[known:end], slots[known:end])
        lease.node, lease.length = node, end
        return slots

    def fork(self, lease: Lease) -> Lease:
        """A second lease on the same tokens."""
        self._lock(lease.node, None)
        return Lease(lease.node, lease.length)

    def end(self, lease: Lease) -> None:
        """Gives up a lease, once; its tokens stay until they are evicted."""
        self._clock += 1
        node: Node | None = lease.node
        while node is not None:
            node.locks -= 1
            node.used = self._clock
            if not node.locks:
                self.evictable += len(node.ids)
            node = node.parent
        self._offer(lease.node)

    def forget(self) -> None:
        """Drops every token that no lease needs."""
        self._free.add(self._evict(self.evictable))

    def _descend(self, node: Node, ids: list[int], at: int, limit: int) -> tuple[Node, list[int]]:
        """Follows ids[at:limit] below `node`: where that ends, at a node's end, and the slots on the way."""
        slots: list[int] = []
        limit = min(limit, len(ids))
        while at < limit and (child := node.children.get(ids[at])) is not None:
            size = len(child.ids)
            if size > BLOCK or at + size > limit or ids[at : at + size] != child.ids:
                size = common_prefix(ids, child.ids, limit - at, at)
                if size < len(child.ids):
                    child = self._split(child, size)
            slots += child.slots
            at += size
            if len(node.children) == 1 and node.locks == child.locks and node.parent is not None:
                self._join(node, child)  # nothing branches off or ends between them any more
            node = child
        return node, slots

    def _split(self, node: Node, at: int) -> Node:
        """Cuts a node in two; the new one is the upper, so that leases on the node still end where they did."""
        upper = Node(node.parent, node.ids, node.slots, node.locks)
        node.ids, node.slots = upper.ids[at:], upper.slots[at:]
        del upper.ids[at:], upper.slots[at:]
        _hang(upper, node.parent)
        _hang(node, upper)
        self.nodes += 1
        return upper

    def _join(self, upper: Node, lower: Node) -> None:
        """Makes one node of two; it is the lower, where leases may end."""
        upper.ids += lower.ids
        upper.slots += lower.slots
        lower.ids, lower.slots = upper.ids, upper.slots
        _hang(lower, upper.parent)
        self.nodes -= 1

    def _append(self, node: Node, ids: list[int], slots: list[int]) -> Node:
        """Puts tokens below a locked node; returns the node that ends with them."""
        if node.locks == 1 and not node.children and node.parent is not None:
            node.ids += ids  # the caller's lease alone ends here
            node.slots += slots
            return node
        self.nodes += 1
        return _hang(Node(None, ids, slots, 1, self._clock), node)

    def _lock(self, node: Node | None, above: Node | None) -> None:
        """Adds a lease to the nodes from `node` up to the one before `above`."""
        while node is not None and node is not above:
            if not node.locks:
                self.evictable -= len(node.ids)
            node.locks += 1
            node.used = self._clock
            node = node.parent

    def _offer(self, node: Node) -> None:
        """Queues a node for eviction if nothing needs it; drops entries that are out of date when they are the most."""
        if node.locks or node.children or node.parent is None:
            return
        self._offers += 1
        heappush(self._leaves, (node.used, self._offers, node))
        if len(self._leaves) > 2 * self.nodes + 100:
            self._leaves = [entry for entry in self._leaves if _is_due(entry)]
            heapify(self._leaves)

    def _evict(self, count: int) -> list[int]:
        """Takes `count` tokens out of the tree, leaves first, the least recently used first; their slots."""
        freed: list[int] = []
        while (rest := count - len(freed)) > 0:
            entry = self._leaves[0]
            leaf = entry[2]
            if not _is_due(entry):
                heappop(self._leaves)
            elif len(leaf.ids) > rest:
                freed += leaf.slots[-rest:]
                del leaf.ids[-rest:], leaf.slots[-rest:]
            else:
                heappop(self._leaves)
                freed += leaf.slots
                self._remove(leaf)
        self.evictable -= count
        return freed

    def _remove(self, leaf: Node) -> None:
        parent, leaf.parent = leaf.parent, None
        assert parent is not None
        del parent.children[leaf.ids[0]]
        self.nodes -= 1
        self._offer(parent)

    def check(self) -> None:
        """Raises AssertionError if a slot is lost or has two owners, or the tree is not as it should be. Slow."""
        free = self._free.check()
        nodes = list(_below(self.root))
        owned = free + [slot for node in nodes for slot in node.slots]
        assert len(set(owned)) == len(owned), "a slot has two owners"
        assert set(owned) <= set(range(self.slots)), "a slot is not of this pool"
        assert len(owned) + self._lent == self.slots, "a slot is lost, or lent twice"
        assert self.root.parent is None
        assert not self.root.ids
        assert len(nodes) == self.nodes
        assert sum(len(node.ids) for node in nodes if not node.locks) == self.evictable
        due = {id(entry[2]) for entry in self._leaves if _is_due(entry)}
        for node in (self.root, *nodes):
            children = node.children
            assert node is self.root or node.ids, "a node is empty"
            assert len(node.ids) == len(node.slots)
            assert all(child.ids[0] == first for first, child in children.items()), "a child is not under its token"
            assert all(child.parent is node for child in children.values())
            assert node.locks >= sum(child.locks for child in children.values()), "a locked node can be evicted"
            assert all(child.locks or child.used <= node.used for child in children.values())
            assert node.locks or children or node is self.root or id(node) in due, "a leaf can never be evicted"


def common_prefix(a: list[int], b: list[int], limit: int, start: int = 0) -> int:
    """Length of the longest common prefix of a[start:] and `b`, at most `limit`; by comparisons at C speed."""
    low, high = 0, min(limit, len(a) - start, len(b))
    step = BLOCK
    while low < high:
        stop = min(low + step, high)
        if a[start + low : start + stop] == b[low:stop]:
            low = stop
        else:
            high, step = stop - 1, step // 2
    return low


def _hang(node: Node, parent: Node | None) -> Node:
    """Makes `node` the parent's child, in place of one that begins alike."""
    assert parent is not None
    node.parent = parent
    parent.children[node.ids[0]] = node
    return node


def _is_due(entry: tuple[int, int, Node]) -> bool:
    """Whether an entry of the queue stands: its node is a leaf of the tree, unlocked and not used since."""
    used, _, node = entry
    return node.used == used and not node.locks and not node.children and node.parent is not None


def _below(node: Node) -> Iterator[Node]:
    """Every node below, each before its children."""
    waiting = list(node.children.values())
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children.values()
