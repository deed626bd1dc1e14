/* table.c - looking up types, and defaults. */
#include "libs/wire/table.h"

const char *wire_name(const struct wire_type *type)
{
    return wire_names + type->name;
}
size_t wire_struct_size(const struct wire_type *type)
{
    return wire_structs[type->index].size;
}
int wire_version_min(const struct wire_type *type)
{
    return type->first <= type->last ? type->first : -1;
}
int wire_version_max(const struct wire_type *type)
{
    return type->last;
}
bool wire_is_flexible(const struct wire_type *type, int version)
{
    return version >= type->flexible;
}

const struct wire_api *wire_api(int16_t key)
{
    return key >= 0 && key < wire_apis_count ? &wire_apis[key] : NULL;
}
int16_t wire_api_count(void)
{
    return wire_apis_count;
}

int wire_request_header_version(const struct wire_api *api, int version)
{
    return wire_is_flexible(api->request, version) ? 2 : 1;
}

/* ApiVersions answers with header 0 whatever is asked (KIP-511): the client does not know yet what we speak. */
int wire_response_header_version(const struct wire_api *api, int version)
{
    enum { API_VERSIONS = 18 };
    return api->key != API_VERSIONS && wire_is_flexible(api->response, version) ? 1 : 0;
}

const struct wire_type *wire_type_by_name(const char *name)
{
    for (unsigned i = 0; i < wire_folder_start[WIRE_FOLDERS]; i++)
        if (strcmp(wire_name(wire_messages[i]), name) == 0)
            return wire_messages[i];
    return NULL;
}

static const struct wire_type *find_record(enum wire_folder folder, int id, bool is_key)
{
    for (unsigned i = wire_folder_start[folder]; i < wire_folder_start[folder + 1]; i++)
        if (wire_messages[i]->id == id && wire_messages[i]->is_key == is_key)
            return wire_messages[i];
    return NULL;
}

const struct wire_type *wire_metadata_record(int id)
{
    return id < 0 ? NULL : find_record(WIRE_FOLDER_METADATA, id, false);
}
const struct wire_type *wire_group_record(int id, bool key)
{
    return id < 0 ? NULL : find_record(WIRE_FOLDER_GROUP, id, key);
}
const struct wire_type *wire_txn_record(int id, bool key)
{
    return id < 0 ? NULL : find_record(WIRE_FOLDER_TRANSACTION, id, key);
}

size_t wire_element_size(const struct wire_field *f)
{
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL:
    case WIRE_INT8: return 1;
    case WIRE_INT16:
    case WIRE_UINT16: return 2;
    case WIRE_INT32:
    case WIRE_UINT32: return 4;
    case WIRE_INT64:
    case WIRE_FLOAT64: return 8;
    case WIRE_UUID: return sizeof(struct uuid);
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: return sizeof(struct slice);
    case WIRE_STRUCT:
    case WIRE_POINTER: return wire_structs[f->sub].size;
    }
    BUG("a kind that the generator does not make");
}

static void set_struct_defaults(const struct wire_struct *t, char *p)
{
    const struct wire_field *f = wire_fields + t->fields;
    for (unsigned i = 0; i < t->all; i++, f++)
        wire_set_default(f, p + f->offset);
}

void wire_init(const struct wire_type *type, void *msg)
{
    set_struct_defaults(&wire_structs[type->index], msg);
}

void wire_set_default(const struct wire_field *f, void *p)
{
    if (f->flags & WIRE_ARRAY) {
        *(void **)p = NULL;
        *wire_count_of(p) = (int32_t)f->value;
        return;
    }
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL:
    case WIRE_INT8: *(int8_t *)p = (int8_t)f->value; return;
    case WIRE_INT16:
    case WIRE_UINT16: *(int16_t *)p = (int16_t)f->value; return;
    case WIRE_INT32:
    case WIRE_UINT32: *(int32_t *)p = (int32_t)f->value; return;
    case WIRE_INT64: *(int64_t *)p = f->value; return;
    case WIRE_FLOAT64: *(double *)p = 0; return;
    case WIRE_UUID: *(struct uuid *)p = UUID_ZERO; return;
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: *(struct slice *)p = f->value ? SLICE_NULL : SLICE_EMPTY; return;
    case WIRE_STRUCT: set_struct_defaults(&wire_structs[f->sub], p); return;
    case WIRE_POINTER: *(const void **)p = f->value ? NULL : wire_default_of(f->sub); return;
    }
}

static bool struct_is_default(const struct wire_struct *t, const char *p)
{
    const struct wire_field *f = wire_fields + t->fields;
    for (unsigned i = 0; i < t->all; i++, f++)
        if (!wire_is_default(f, p + f->offset))
            return false;
    return true;
}

bool wire_is_default(const struct wire_field *f, const void *p)
{
    if (f->flags & WIRE_ARRAY)
        return wire_count(p) == f->value;
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL:
    case WIRE_INT8: return *(const int8_t *)p == f->value;
    case WIRE_INT16: return *(const int16_t *)p == f->value;
    case WIRE_UINT16: return *(const uint16_t *)p == f->value;
    case WIRE_INT32: return *(const int32_t *)p == f->value;
    case WIRE_UINT32: return *(const uint32_t *)p == f->value;
    case WIRE_INT64: return *(const int64_t *)p == f->value;
    case WIRE_FLOAT64: return *(const double *)p == 0;
    case WIRE_UUID: return uuid_is_zero(*(const struct uuid *)p);
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: {
        const struct slice *s = p;
        return f->value ? s->data == NULL : s->data != NULL && s->size == 0;
    }
    case WIRE_STRUCT: return struct_is_default(&wire_structs[f->sub], p);
    case WIRE_POINTER: {
        const void *target = *(const void *const *)p;
        return f->value ? target == NULL : target != NULL && struct_is_default(&wire_structs[f->sub], target);
    }
    }
    return false;
}
