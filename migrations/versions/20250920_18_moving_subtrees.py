"""Pairs of the closure table cost a third to write, so that large subtrees can be moved.

Revision: 20250920_18, after 20250920_17. The pairs no longer refer to `organization`: they are written from
other pairs only, an organisation can't go while its history of parents refers to it, and `eb invariants` compares them
with the parents. Children have an index of their own instead of one over all pairs, and the primary key holds the
depth, so that pages of descendants are read from it alone.
Downgrade: nothing is lost.
"""

from kit_tables import run

revision = "20250920_18"
down_revision = "20250920_17"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the references and the wide index away; let the primary key hold the depth."""
    run(LIGHT)


def downgrade() -> None:
    """Bring them back; the references are checked."""
    run(HEAVY)


# No service writes hierarchies while it is migrated: the table is small (millions of rows) and locked for seconds.
LIGHT = """
ALTER TABLE auth.org_hierarchy
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT org_hierarchy_ancestor_org_id_fkey,
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT org_hierarchy_descendant_org_id_fkey;
ALTER TABLE auth.org_hierarchy
    -- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT org_hierarchy_pkey,
    -- squawk-ignore adding-serial-primary-key-field
    ADD CONSTRAINT org_hierarchy_pkey PRIMARY KEY (ancestor_org_id, descendant_org_id) INCLUDE (depth);
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX auth.org_hierarchy_by_depth;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX org_hierarchy_children ON auth.org_hierarchy (ancestor_org_id, descendant_org_id) WHERE depth = 1;
"""

HEAVY = """
DROP INDEX auth.org_hierarchy_children;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX org_hierarchy_by_depth ON auth.org_hierarchy (ancestor_org_id, depth, descendant_org_id);
ALTER TABLE auth.org_hierarchy
    DROP CONSTRAINT org_hierarchy_pkey,
    ADD CONSTRAINT org_hierarchy_pkey PRIMARY KEY (ancestor_org_id, descendant_org_id),
    -- squawk-ignore adding-foreign-key-constraint
    ADD CONSTRAINT org_hierarchy_ancestor_org_id_fkey
        FOREIGN KEY (ancestor_org_id) REFERENCES auth.organization (org_id),
    -- squawk-ignore adding-foreign-key-constraint
    ADD CONSTRAINT org_hierarchy_descendant_org_id_fkey
        FOREIGN KEY (descendant_org_id) REFERENCES auth.organization (org_id);
"""
