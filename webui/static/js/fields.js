// Values of form fields, or a problem that names the field as the page does.

const nameOf = (field) => field.labels[0].textContent.trim();

export function filled(field) {
  const value = field.value.trim();
  if (value) return value;
  throw { message: `“${nameOf(field)}” is empty.`, remedy: "Fill it in.", field };
}

export function wholeNumber(field) {
  if (field.value && field.validity.valid) return field.valueAsNumber;
  throw { message: `“${nameOf(field)}” takes a whole number from ${field.min} to ${field.max}.`, remedy: "Correct it.", field };
}
