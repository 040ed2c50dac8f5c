/*
 * schema_resource.c
 *		Which schemas are in a schema, under which names, and where references lead.
 *
 * A scan of the text goes down those keywords that hold schemas, so that an "$id" in an enum is
 * no id.  A pointer may lead to other places, too: those are scanned when that happens.  A URI that
 * nothing in the schema has is looked up among the metaschemas; nothing else is ever opened.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "gate/schema_compile.h"
#include "gate/schema_uri.h"

/* Messages show names up to this many bytes. */
#define SHOWN_BYTES 100

const SchemaPlace *
schema_place_member(const SchemaPlace *parent, const char *token, int length)
{
	SchemaPlace *place = palloc(sizeof(SchemaPlace));

	place->parent = parent;
	place->token = token;
	place->length = length;
	return place;
}

const SchemaPlace *
schema_place_element(const SchemaPlace *parent, int index)
{
	return schema_place_member(parent, NULL, index);
}

/* Appends the JSON pointer of a place; in a metaschema its URI stands before it. */
void
schema_place_pointer(StringInfo pointer, const SchemaPlace *place)
{
	if (place->parent == NULL)
	{
		appendBinaryStringInfo(pointer, place->token, place->length);
		return;
	}
	check_stack_depth();
	schema_place_pointer(pointer, place->parent);
	if (place->token == NULL)
		appendStringInfo(pointer, "/%d", place->length);
	else
		json_pointer_append(pointer, place->token, place->length);
}

static SchemaResource *
find_resource(SchemaCompiler *compiler, const char *uri)
{
	SchemaResource *resource = compiler->schema->resources;

	while (resource != NULL && strcmp(resource->uri, uri) != 0)
		resource = resource->next;
	return resource;
}

static SchemaResource *
add_resource(SchemaCompiler *compiler, const JsonSlot *root, const char *uri,
			 const SchemaPlace *place, SchemaDraft draft)
{
	SchemaResource *resource = palloc0(sizeof(SchemaResource));

	resource->uri = uri;
	resource->root = *root;
	resource->root.parent = NULL;
	resource->place = place;
	resource->draft = draft;
	resource->next = compiler->schema->resources;
	compiler->schema->resources = resource;
	return resource;
}

/* Enters a document; origin is what pointers into it start with. */
SchemaResource *
schema_add_document(SchemaCompiler *compiler, const JsonSlot *root, const char *uri,
					const char *origin, SchemaDraft draft)
{
	const SchemaPlace *place = schema_place_member(NULL, origin, strlen(origin));
	SchemaResource *resource = add_resource(compiler, root, uri, place, draft);

	schema_scan(compiler, root, resource, place);
	return resource;
}

static void
add_anchor(SchemaCompiler *compiler, SchemaResource *resource, const JsonSlot *slot,
		   const SchemaPlace *place, const char *name, int length, bool dynamic)
{
	SchemaAnchor *anchor;

	for (anchor = resource->anchors; anchor != NULL; anchor = anchor->next)
	{
		if (anchor->length == length && memcmp(anchor->name, name, length) == 0)
		{
			/* The same schema may have both kinds. */
			if (anchor->slot.data == slot->data)
				anchor->dynamic |= dynamic;
			else
				schema_fail(compiler, place, "the anchor \"%.*s\" is there twice",
							pg_mbcliplen(name, length, SHOWN_BYTES), name);
			return;
		}
	}
	anchor = palloc0(sizeof(SchemaAnchor));
	anchor->name = name;
	anchor->length = length;
	anchor->dynamic = dynamic;
	anchor->slot = *slot;
	anchor->slot.parent = NULL;
	anchor->place = place;
	anchor->next = resource->anchors;
	resource->anchors = anchor;
}

/* The resource that a schema with an "$id" is: a new one, or the one it is in. */
static SchemaResource *
resource_of_id(SchemaCompiler *compiler, const JsonSlot *slot, SchemaResource *resource,
			   const SchemaPlace *place, const JsonSlot *id)
{
	char *text = pnstrdup(id->data, id->length);
	char *uri = schema_uri_resolve(resource->uri, text);
	char *fragment = schema_uri_fragment(text);
	SchemaResource *other;

	if (strcmp(uri, resource->uri) != 0)
	{
		other = find_resource(compiler, uri);
		if (other != NULL)
			schema_fail(compiler, schema_place_member(place, "$id", 3),
						"two schemas have this \"$id\"");
		else if (slot->data == resource->root.data)
			resource->uri = uri;
		else
			resource = add_resource(compiler, slot, uri, place, resource->draft);
	}
	/* Draft 7 has no other way to name an anchor. */
	if (fragment != NULL && fragment[0] != '\0' && fragment[0] != '/' &&
		resource->draft == SCHEMA_DRAFT_7)
		add_anchor(compiler, resource, slot, place, fragment, strlen(fragment), false);
	return resource;
}

static void
scan_children(SchemaCompiler *compiler, const JsonSlot *value, SchemaShape shape,
			  SchemaResource *resource, const SchemaPlace *place)
{
	JsonWalk walk;
	JsonSlot child;

	if (value->type == JSON_TYPE_OBJECT && (shape == SHAPE_SCHEMA || shape == SHAPE_SCHEMA_OR_LIST))
		schema_scan(compiler, value, resource, place);
	else if (value->type == JSON_TYPE_ARRAY &&
			 (shape == SHAPE_LIST || shape == SHAPE_SCHEMA_OR_LIST))
	{
		json_walk_start(&walk, value);
		while (json_walk_element(&walk, &child))
			schema_scan(compiler, &child, resource, schema_place_element(place, walk.index - 1));
	}
	else if (value->type == JSON_TYPE_OBJECT &&
			 (shape == SHAPE_MAP || shape == SHAPE_SCHEMA_OR_NAMES_MAP))
	{
		json_walk_start(&walk, value);
		while (json_walk_member(&walk, &child))
			schema_scan(compiler, &child, resource,
						schema_place_member(place, child.key, child.key_length));
	}
}

/* Enters the schemas of a text, their URIs and their anchors. */
void
schema_scan(SchemaCompiler *compiler, const JsonSlot *slot, SchemaResource *resource,
			const SchemaPlace *place)
{
	SchemaLocation *location;
	JsonWalk walk;
	JsonSlot value;
	bool found;

	if (slot->type != JSON_TYPE_OBJECT || compiler->failed)
		return;
	CHECK_FOR_INTERRUPTS();
	if (compiler->nesting >= SCHEMA_MAX_NESTING)
	{
		schema_fail(compiler, place, "schemas are nested more than %d levels deep",
					SCHEMA_MAX_NESTING);
		return;
	}
	location = hash_search(compiler->locations, &slot->data, HASH_ENTER, &found);
	if (found)
		return;
	location->resource = resource;
	location->place = place;
	location->node = NULL;

	if (json_slot_member(slot, "$schema", 7, &value) && value.type == JSON_TYPE_STRING &&
		schema_draft(value.data, value.length) != resource->draft)
		schema_fail(compiler, schema_place_member(place, "$schema", 7),
					"a schema inside of another must be of the same draft");

	/* In draft 7 nothing counts beside a $ref. */
	if (resource->draft == SCHEMA_DRAFT_7 && slot->data != resource->root.data &&
		json_slot_member(slot, "$ref", 4, &value))
		return;
	if (json_slot_member(slot, "$id", 3, &value) && value.type == JSON_TYPE_STRING)
		resource = location->resource = resource_of_id(compiler, slot, resource, place, &value);
	if (resource->draft == SCHEMA_DRAFT_2020_12)
	{
		if (json_slot_member(slot, "$anchor", 7, &value) && value.type == JSON_TYPE_STRING)
			add_anchor(compiler, resource, slot, place, value.data, value.length, false);
		if (json_slot_member(slot, "$dynamicAnchor", 14, &value) && value.type == JSON_TYPE_STRING)
			add_anchor(compiler, resource, slot, place, value.data, value.length, true);
	}

	compiler->nesting++;
	json_walk_start(&walk, slot);
	while (json_walk_member(&walk, &value))
	{
		const SchemaKeyword *keyword = schema_keyword(value.key, value.key_length, resource->draft);

		if (keyword != NULL && keyword->shape != SHAPE_NONE)
			scan_children(compiler, &value, keyword->shape, resource,
						  schema_place_member(place, value.key, value.key_length));
	}
	compiler->nesting--;
}

SchemaLocation *
schema_location(SchemaCompiler *compiler, const JsonSlot *slot)
{
	return hash_search(compiler->locations, &slot->data, HASH_FIND, NULL);
}

/* Takes one token off a JSON pointer, unescaped; NULL at the end. */
static char *
next_token(const char **pointer)
{
	const char *cur = *pointer;
	char *token;
	char *target;

	if (*cur != '/')
		return NULL;
	token = target = palloc(strcspn(cur + 1, "/") + 1);
	for (cur++; *cur != '\0' && *cur != '/'; cur++)
	{
		if (cur[0] == '~' && (cur[1] == '0' || cur[1] == '1'))
			*target++ = *++cur == '0' ? '~' : '/';
		else
			*target++ = *cur;
	}
	*target = '\0';
	*pointer = cur;
	return token;
}

static int
array_index(const char *token)
{
	if (token[0] == '\0' || strlen(token) > 9 || strspn(token, "0123456789") != strlen(token) ||
		(token[0] == '0' && token[1] != '\0'))
		return -1;
	return atoi(token);
}

/* The schema that a pointer from the root of a resource leads to; NULL when there is none. */
static SchemaNode *
follow_pointer(SchemaCompiler *compiler, SchemaResource *resource, const char *pointer,
			   const SchemaPlace *from)
{
	JsonSlot slot = resource->root;
	const SchemaPlace *place = resource->place;
	SchemaLocation *location = NULL;
	char *token;

	while ((token = next_token(&pointer)) != NULL)
	{
		JsonSlot child;

		if (slot.type == JSON_TYPE_OBJECT && json_slot_member(&slot, token, strlen(token), &child))
			place = schema_place_member(place, child.key, child.key_length);
		else if (slot.type == JSON_TYPE_ARRAY &&
				 json_slot_element(&slot, array_index(token), &child))
			place = schema_place_element(place, child.key_length);
		else
		{
			schema_fail(compiler, from, "there is nothing where the reference leads");
			return NULL;
		}
		slot = child;
		slot.parent = NULL;
		location = slot.type == JSON_TYPE_OBJECT ? schema_location(compiler, &slot) : NULL;
		if (location != NULL)
		{
			resource = location->resource;
			place = location->place;
		}
	}
	if (slot.type == JSON_TYPE_OBJECT && schema_location(compiler, &slot) == NULL)
	{
		SchemaTarget *target = palloc(sizeof(SchemaTarget));

		target->slot = slot;
		target->place = place;
		target->next = compiler->targets;
		compiler->targets = target;
		schema_scan(compiler, &slot, resource, place);
	}
	return schema_compile_node(compiler, &slot, resource, place);
}

/*
 * The schema that a reference leads to, and in *anchor the anchor that it names if it does; fails
 * softly with NULL.
 */
SchemaNode *
schema_resolve(SchemaCompiler *compiler, const SchemaResource *base, const char *reference,
			   const SchemaPlace *place, const SchemaAnchor **anchor)
{
	char *uri = schema_uri_resolve(base->uri, reference);
	char *fragment = schema_uri_fragment(reference);
	SchemaResource *resource = find_resource(compiler, uri);

	*anchor = NULL;
	if (resource == NULL)
	{
		const char *text = schema_meta_text(uri);
		Jsonb *document;
		JsonSlot root;

		if (text == NULL)
		{
			schema_fail(
				compiler, place,
				"the reference leads to \"%.*s\", which is not in the schema, and nothing is fetched",
				pg_mbcliplen(uri, strlen(uri), SHOWN_BYTES), uri);
			return NULL;
		}
		document = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
		json_slot_root(&root, &document->root);
		resource = schema_add_document(compiler, &root, uri, psprintf("%s#", uri),
									   strstr(uri, "draft-07") != NULL ? SCHEMA_DRAFT_7
																	   : SCHEMA_DRAFT_2020_12);
	}
	if (fragment == NULL || fragment[0] == '\0')
		return schema_compile_node(compiler, &resource->root, resource, resource->place);
	if (fragment[0] == '/')
		return follow_pointer(compiler, resource, fragment, place);
	for (SchemaAnchor *known = resource->anchors; known != NULL; known = known->next)
	{
		if (known->length == strlen(fragment) && memcmp(known->name, fragment, known->length) == 0)
		{
			*anchor = known;
			return schema_compile_node(compiler, &known->slot, resource, known->place);
		}
	}
	schema_fail(compiler, place, "there is no anchor where the reference leads");
	return NULL;
}
